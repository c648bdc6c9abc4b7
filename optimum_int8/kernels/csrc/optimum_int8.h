// C interface of the kernel library: pointers and sizes, no Python, no torch.
//
// Work is a *program*: instructions over values, run by one call inside one parallel region. A
// single operator is a program of one instruction, so dispatch, tests and benchmarks have one way
// in. The arithmetic is defined by optimum_int8/numerics.
//
// A *value* is a matrix with `batch * length` rows (of the keys of an attention, as many as these
// have: a program reads up to OI8_KEYS kinds of keys, as a decoder's own and the encoder's). It
// lies in an array of the caller (`external`) or in the arena, which the library owns, one per
// calling thread. uint8 values that feed a linear or attention need readable (not meaningful)
// memory up to a multiple of 64 columns and of 32 rows; arena values have it by construction.
//
// A *spatial* program (images) is run once for each batch entry, and each of its values says how
// many rows, which are pixels, an entry has. Its arena offsets are bytes, and its uint8 rows may
// lie without padding, as long as 64 bytes can be read past the last.
//
// An *instruction* is a struct of its operator that begins with an oi8_instruction. kernels/
// interface.py declares the same in Python; `oi8_interface` reports all of it (interface.cpp), and
// Python compares the two when it loads the library.
#ifndef OPTIMUM_INT8_H
#define OPTIMUM_INT8_H

#include <stdint.h>

#if defined(__GNUC__)
#define OI8_EXPORT __attribute__((visibility("default")))
#else
#define OI8_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define OI8_ABI 17

enum oi8_isa { OI8_PORTABLE, OI8_AVX2, OI8_AVX512_VNNI, OI8_AMX, OI8_ISA_COUNT };

enum oi8_op {
  OI8_QUANTIZE,
  OI8_LINEAR,
  OI8_NORM,
  OI8_ATTENTION,
  OI8_EMBEDDING,
  OI8_CONV,
  OI8_MAX_POOL,
  OI8_AVG_POOL,
  OI8_QUANTIZE_SAMPLE,
  OI8_ADD,
  OI8_FLOAT_ATTENTION,
  OI8_RECURRENT,
  OI8_EMBEDDING_BAG,
  OI8_GATED,
  OI8_ROTARY,
  OI8_HEAD_NORM,
  OI8_APPEND,
  OI8_TAKE_HEADS,
  OI8_APPEND_INT8,
  OI8_OP_COUNT
};

enum oi8_activation {
  OI8_NONE,
  OI8_RELU,
  OI8_GELU,
  OI8_GELU_TANH,
  OI8_SILU,
  OI8_TANH,
  OI8_LEAKY_RELU,  // this and the next: of a CONV
  OI8_HARDSWISH,
  OI8_ACTIVATION_COUNT
};

enum oi8_norm_kind { OI8_NO_NORM, OI8_LAYER_NORM, OI8_RMS_NORM, OI8_NORM_KIND_COUNT };

enum oi8_mask { OI8_NO_MASK, OI8_BOOL_MASK, OI8_FLOAT_MASK, OI8_MASK_COUNT };

enum oi8_status {
  OI8_OK,
  OI8_BAD_ARGUMENT,
  OI8_OUT_OF_MEMORY,
  OI8_BAD_INDEX,
  OI8_UNSUPPORTED_ISA,
  OI8_STATUS_COUNT
};

typedef struct oi8_value {
  int32_t external;   // index into oi8_call.external, or -1: in the arena
  int32_t row_bytes;  // distance between rows; a multiple of 64 for uint8 that feeds a linear or
                      // attention
  int64_t offset;     // arena: bytes per row that lie before it
  int32_t periodic;   // external: holds one batch entry, the same for all
  int32_t rows;       // of each batch entry, in a spatial program
} oi8_value;

// What every instruction begins with. Indices are those of values, -1 where there is none.
typedef struct oi8_instruction {
  int32_t op;        // enum oi8_op: which struct this is the beginning of
  int32_t key_side;  // which oi8_call.keys, counted from 1: QUANTIZE, LINEAR: the rows are theirs,
                     // 0 those of the tokens; attention, APPEND: what it reads, the first with 0
  int32_t input[6];
  int32_t output[4];
} oi8_instruction;

// float32 rows, from element `column` on, to uint8. Static: `output_scale`, `output_zero_point`.
// Dynamic, where there is a value for scales: `groups` ranges per row; symmetric (zero point 128)
// where there is none for zero points, which are int32.
enum oi8_quantize_input { OI8_QUANTIZE_FLOATS };
enum oi8_quantize_output { OI8_QUANTIZE_BYTES, OI8_QUANTIZE_SCALES, OI8_QUANTIZE_ZERO_POINTS };
typedef struct oi8_quantize {
  oi8_instruction head;
  int32_t columns;
  int32_t groups;
  int32_t column;
  float output_scale;
  int32_t output_zero_point;
} oi8_quantize;

// uint8 rows by an int8 weight to float32, or to uint8 when `output_scale` > 0 or there are
// `output_scales`. Dynamic, where there are values for the rows' scales and zero points.
enum oi8_linear_input { OI8_LINEAR_ROWS, OI8_LINEAR_SCALES, OI8_LINEAR_ZERO_POINTS };
enum oi8_linear_output { OI8_LINEAR_RESULT };
typedef struct oi8_linear {
  oi8_instruction head;
  int32_t columns;    // N: outputs
  int32_t reduction;  // K: inputs
  int32_t activation;
  float input_scale;
  int32_t input_zero_point;
  float output_scale;
  int32_t output_zero_point;
  const void *weight;          // panels (layout.h)
  const int32_t *weight_sum;   // of each output, padded with zeros to whole panels
  const float *weight_scale;   // of each output
  const float *bias;           // or null
  const float *output_scales;  // to uint8: one for each output, or null for `output_scale`
  const void *prepared;        // what oi8_prepare_weight made of `weight` for this ISA, or null
} oi8_linear;

// float32 rows, or the sum of two, normalised to float32, to uint8 (static, or dynamic where there
// are values for the rows' scales and zero points), or to both.
enum oi8_norm_input { OI8_NORM_FLOATS, OI8_NORM_RESIDUAL };
enum oi8_norm_output { OI8_NORM_RESULT, OI8_NORM_BYTES, OI8_NORM_SCALES, OI8_NORM_ZERO_POINTS };
typedef struct oi8_norm {
  oi8_instruction head;
  int32_t columns;
  int32_t kind;  // enum oi8_norm_kind
  float epsilon;
  float output_scale;
  int32_t output_zero_point;
  const float *weight;  // or null
  const float *bias;    // or null
} oi8_norm;

// uint8 queries, keys and values (zero point 128) at byte `column` of their rows to float32, or to
// uint8 when `output_scale` > 0. Dynamic, where there are values for scales: float32, one per head,
// at element `scale_column`.
enum oi8_attention_input {
  OI8_ATTENTION_QUERIES,
  OI8_ATTENTION_KEYS,
  OI8_ATTENTION_VALUES,
  OI8_ATTENTION_QUERY_SCALES,
  OI8_ATTENTION_KEY_SCALES,
  OI8_ATTENTION_VALUE_SCALES
};
enum oi8_attention_output { OI8_ATTENTION_RESULT };
typedef struct oi8_attention {
  oi8_instruction head;
  int32_t columns;    // of the result: heads times head size
  int32_t heads;      // of the queries
  int32_t key_heads;  // of keys and values
  int32_t causal;
  float scaling;      // of the scores
  int32_t column[3];  // of queries, keys, values
  int32_t scale_column[3];
  float input_scale[3];
  float output_scale;
  int32_t output_zero_point;
} oi8_attention;

// float32 queries, keys and values at element `column` of their rows to float32, or to uint8 when
// `output_scale` > 0. With a `softcap`, scores are that many times the tanh of what they are of it.
typedef struct oi8_float_attention {
  oi8_instruction head;
  int32_t columns;
  int32_t heads;
  int32_t key_heads;
  int32_t causal;
  int32_t bfloat16;  // on operands rounded to it
  float scaling;
  float softcap;  // or 0
  int32_t column[3];
  float output_scale;
  int32_t output_zero_point;
} oi8_float_attention;

// int64 indices to rows of an int8 table as float32; adds another value where there is one.
enum oi8_embedding_input { OI8_EMBEDDING_INDICES, OI8_EMBEDDING_ADDED };
enum oi8_embedding_output { OI8_EMBEDDING_RESULT };
typedef struct oi8_embedding {
  oi8_instruction head;
  int64_t rows;  // of the table
  int32_t columns;
  int32_t reserved;
  const int8_t *weight;       // [rows][columns]
  const float *weight_scale;  // [rows]
} oi8_embedding;

// The windows of a convolution or pooling over an image.
typedef struct oi8_window {
  int32_t height, width;  // of the input
  int32_t out_height, out_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_y, stride_x;
  int32_t top, left;  // padding before the first row and column
  int32_t dilation_y, dilation_x;
} oi8_window;

// A uint8 image by an int8 weight to float32, to uint8, or to both. Dynamic, where there are values
// for the image's scale and zero point. A residual is added after `activation` and before
// `final_activation`: float32, or uint8 when `residual_scale` > 0.
enum oi8_conv_input { OI8_CONV_IMAGE, OI8_CONV_SCALE, OI8_CONV_ZERO_POINT, OI8_CONV_RESIDUAL };
enum oi8_conv_output { OI8_CONV_FLOATS, OI8_CONV_BYTES };
typedef struct oi8_conv {
  oi8_instruction head;
  int32_t columns;    // all output channels
  int32_t reduction;  // of a group: kernel rows, kernel columns, channels
  int32_t groups;
  int32_t depthwise;
  int32_t activation;
  int32_t final_activation;
  float slope;  // of a leaky ReLU, for both
  float input_scale;
  int32_t input_zero_point;
  float residual_scale;
  int32_t residual_zero_point;
  float output_scale;
  int32_t output_zero_point;
  oi8_window window;
  const void *weight;  // the panels of each group, or a float32 table of taps when depthwise
  const int32_t *weight_sum;
  const float *weight_scale;
  const float *bias;     // or null
  const void *prepared;  // as of a linear
} oi8_conv;

// MAX_POOL: uint8 or float32 to the same. AVG_POOL: uint8 or float32 to float32 or uint8.
enum oi8_pool_input { OI8_POOL_IMAGE };
enum oi8_pool_output { OI8_POOL_RESULT, OI8_POOL_BYTES };  // the latter: an AVG_POOL to uint8
typedef struct oi8_pool {
  oi8_instruction head;
  int32_t columns;         // channels
  int32_t floats;          // the image is float32
  int32_t padding_counts;  // AVG_POOL: in the number that the sum is divided by; as much behind as
                           // in front
  float input_scale;       // AVG_POOL of uint8, as the next
  int32_t input_zero_point;
  float output_scale;
  int32_t output_zero_point;
  oi8_window window;
} oi8_pool;

// A float32 image to uint8 with one scale and one zero point (int32).
enum oi8_quantize_sample_input { OI8_SAMPLE_FLOATS };
enum oi8_quantize_sample_output { OI8_SAMPLE_BYTES, OI8_SAMPLE_SCALE, OI8_SAMPLE_ZERO_POINT };
typedef struct oi8_quantize_sample {
  oi8_instruction head;
  int32_t columns;
} oi8_quantize_sample;

// One uint8 value or the sum of two to float32, or to uint8 when `output_scale` > 0, from byte
// `output_column` of its rows on.
enum oi8_add_input { OI8_ADD_ONE, OI8_ADD_OTHER };
enum oi8_add_output { OI8_ADD_RESULT };
typedef struct oi8_add {
  oi8_instruction head;
  int32_t columns;  // of the inputs
  int32_t output_column;
  float input_scale;
  int32_t input_zero_point;
  float other_scale;
  int32_t other_zero_point;
  float output_scale;
  int32_t output_zero_point;
} oi8_add;

// Bags of int64 indices, those of bag `i` from `starts[i]` to `starts[i + 1]`, to the sum, mean or
// maximum of rows of an int8 table as float32.
enum oi8_bag_mode { OI8_BAG_SUM, OI8_BAG_MEAN, OI8_BAG_MAX, OI8_BAG_MODE_COUNT };
enum oi8_bag_output { OI8_BAG_RESULT };
typedef struct oi8_embedding_bag {
  oi8_instruction head;
  int64_t rows;  // of the table
  int32_t columns;
  int32_t mode;     // enum oi8_bag_mode
  int64_t skipped;  // an index that counts for nothing, or -1
  const int64_t *indices;
  const int64_t *starts;
  const float *factors;  // of each index, or null
  const int8_t *weight;  // [rows][columns]
  const float *weight_scale;
} oi8_embedding_bag;

// The steps of an LSTM (4 gates) or a GRU (3 gates). `inputs` are float32 rows, of each direction
// all gates; the states are float32 [directions][batch][columns]. The rows of a sequence lie
// `batch_first`, or step by step; of packed sequences, the longest first, step `i` has `sizes[i]`
// rows from row `starts[i]` on.
enum oi8_recurrent_input { OI8_RECURRENT_INPUTS, OI8_RECURRENT_HIDDEN, OI8_RECURRENT_CELL };
enum oi8_recurrent_output {
  OI8_RECURRENT_RESULT,
  OI8_RECURRENT_LAST_HIDDEN,
  OI8_RECURRENT_LAST_CELL
};
typedef struct oi8_recurrent {
  oi8_instruction head;
  int32_t columns;  // hidden units
  int32_t gates;
  int32_t directions;
  int32_t batch;  // sequences
  int32_t length;
  int32_t batch_first;
  const int64_t *sizes;   // or null
  const int64_t *starts;  // or null
  const void *weight;     // panels: direction, block of 32 units, gate
  const int32_t *weight_sum;
  const float *weight_scale;
  const float *bias;  // or null; as the two before, padded as the panels are
  const void *prepared;
} oi8_recurrent;

// `activation(gate) * up` of float32 rows, each from element `column` of its rows on, to float32 or
// to uint8 (static, or dynamic where there are values for the rows' scales and zero points).
enum oi8_gated_input { OI8_GATED_GATE, OI8_GATED_UP };
enum oi8_gated_output {
  OI8_GATED_RESULT,
  OI8_GATED_BYTES,
  OI8_GATED_SCALES,
  OI8_GATED_ZERO_POINTS
};
typedef struct oi8_gated {
  oi8_instruction head;
  int32_t columns;
  int32_t activation;
  int32_t column[2];
  float output_scale;
  int32_t output_zero_point;
} oi8_gated;

// Heads of float32 rows, from element `column` of their rows on, turned by the angles of their row.
enum oi8_rotary_input { OI8_ROTARY_FLOATS, OI8_ROTARY_COSINES, OI8_ROTARY_SINES };
enum oi8_rotary_output { OI8_ROTARY_RESULT };
typedef struct oi8_rotary {
  oi8_instruction head;
  int32_t columns;  // heads times head size
  int32_t heads;
  int32_t turned;       // of each head, from its first element on; the others are copied
  int32_t interleaved;  // pairs are neighbours, else half of `turned` apart
  int32_t column;
} oi8_rotary;

// Each head of float32 rows, from element `column` of their rows on, normalised.
enum oi8_head_norm_input { OI8_HEAD_NORM_FLOATS };
enum oi8_head_norm_output { OI8_HEAD_NORM_RESULT };
typedef struct oi8_head_norm {
  oi8_instruction head;
  int32_t columns;  // heads times head size
  int32_t heads;
  int32_t kind;  // enum oi8_norm_kind
  float epsilon;
  int32_t column;
  int32_t reserved;
  const float *weight;  // of a head, or null
  const float *bias;    // of a head, or null
} oi8_head_norm;

// float32 rows of keys or values that there are already, and after them those of this call, from
// element `column` of their rows on. Where the result begins where the earlier rows lie, they stay.
enum oi8_append_input { OI8_APPEND_EARLIER, OI8_APPEND_ROWS };
enum oi8_append_output { OI8_APPEND_RESULT };
typedef struct oi8_append {
  oi8_instruction head;
  int32_t columns;
  int32_t column;
} oi8_append;

// Pieces of float32 rows, one beside the other: the first at element `column` of their rows, the
// others each `stride` elements further.
enum oi8_take_heads_input { OI8_TAKE_HEADS_FLOATS };
enum oi8_take_heads_output { OI8_TAKE_HEADS_RESULT };
typedef struct oi8_take_heads {
  oi8_instruction head;
  int32_t columns;  // of all pieces
  int32_t heads;    // their number
  int32_t column;
  int32_t stride;
} oi8_take_heads;
// float32 rows of keys or values of this call, from element `column` on, to uint8 with zero point
// 128, after those that there are already. One scale for all, or where there is a value for scales
// one for each row and each of `groups`, as QUANTIZE has it. Sequences are `rows` of their keys
// apart.
enum oi8_append_int8_input { OI8_APPEND_INT8_ROWS };
enum oi8_append_int8_output { OI8_APPEND_INT8_BYTES, OI8_APPEND_INT8_SCALES };
typedef struct oi8_append_int8 {
  oi8_instruction head;
  int32_t columns;
  int32_t groups;
  int32_t column;
  float output_scale;
} oi8_append_int8;

typedef struct oi8_program {
  const oi8_instruction *const *instructions;  // each the beginning of its operator's struct
  const oi8_value *values;
  int32_t instruction_count;
  int32_t value_count;
  int64_t arena_row_bytes;  // bytes of one row of all local values; of all of them when spatial
  int32_t spatial;
  int32_t reserved;
} oi8_program;

// Keys and values of one length, under one mask.
typedef struct oi8_keys {
  const void *mask;
  int32_t mask_kind;       // enum oi8_mask
  int32_t length;          // the queries are the last of them when causal
  int64_t mask_stride[3];  // elements between batches, heads, queries; keys are adjacent
  int32_t rows;    // of INT8 keys and values in the caller's arrays, between sequences; 0: `length`
  int32_t shared;  // sequences that follow one another and read the same of them; 0 and 1: each its
                   // own
} oi8_keys;

#define OI8_KEYS 4

typedef struct oi8_call {
  int32_t batch;
  int32_t length;
  void *const *external;
  oi8_keys keys[OI8_KEYS];  // kinds that no instruction reads have no length
  int32_t skip_padding;  // tokens that a padding mask of the only keys hides need not be computed;
                         // their results are then zero
  int32_t reserved;
} oi8_call;

// A constant of this interface: the value of an enumerator, `sizeof` a struct, or where a field
// lies in its struct.
typedef struct oi8_fact {
  const char *name;
  int64_t value;
} oi8_fact;

OI8_EXPORT int oi8_abi(void);
OI8_EXPORT const oi8_fact *oi8_interface(int32_t *count);
OI8_EXPORT int oi8_isa_built(int isa);      // compiled into this library
OI8_EXPORT int oi8_isa_available(int isa);  // built, and this CPU and kernel allow it
OI8_EXPORT const char *oi8_isa_name(int isa);

// Some instruction sets multiply faster with a second form of the panels of a weight, made once.
// Writes it to `out` (64-byte aligned) and returns its bytes, 0 where it would not pay; with `out`
// null returns how many it may have, 0 where there is none. Results do not depend on it.
OI8_EXPORT int64_t oi8_prepare_weight(int isa, const void *weight, int64_t panels, int32_t steps,
                                      void *out);

OI8_EXPORT int oi8_run(int isa, const oi8_program *program, const oi8_call *call);

// Several programs, one after the other, each with its call; the first that fails is the last.
OI8_EXPORT int oi8_run_all(int isa, const oi8_program *const *programs, const oi8_call *calls,
                           int count);

// Each thread that runs programs keeps working memory for its next call. Gives back that of all
// threads: of one that runs a program now when that is done. Returns the bytes given back at once.
OI8_EXPORT int64_t oi8_release_memory(void);

#ifdef __cplusplus
}
#endif

#endif
