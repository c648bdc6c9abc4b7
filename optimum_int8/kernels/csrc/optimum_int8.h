/* C interface of the kernel library: pointers and sizes, no Python, no torch.
 *
 * Work is a *program*: instructions over values, run by one call inside one parallel region. A
 * single operator is a program of one instruction, so dispatch, tests and benchmarks have one way
 * in. The arithmetic is defined by optimum_int8/numerics.py.
 *
 * A *spatial* program (images) is run once for each batch entry, and each of its values says how
 * many rows, which are pixels, an entry has. Its arena offsets are bytes, and its uint8 rows may
 * lie without padding, as long as 64 bytes can be read past the last.
 *
 * A value is a matrix with `batch * length` rows (`batch * key_length` on the key side of an
 * attention). It lies in an array of the caller (`external`) or in the arena, which the library
 * owns, one per calling thread. uint8 values that feed a linear or attention need readable (not
 * meaningful) memory up to a multiple of 64 columns and of 32 rows; arena values have it by
 * construction.
 */
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

#define OI8_ABI 8

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
  OI8_OP_COUNT
};

enum oi8_activation {
  OI8_NONE,
  OI8_RELU,
  OI8_GELU,
  OI8_GELU_TANH,
  OI8_SILU,
  OI8_TANH,
  OI8_LEAKY_RELU,
  OI8_HARDSWISH,
  OI8_ACTIVATION_COUNT
}; /* the last two: of a CONV */

enum oi8_norm { OI8_NO_NORM, OI8_LAYER_NORM, OI8_RMS_NORM };

enum oi8_mask { OI8_NO_MASK, OI8_BOOL_MASK, OI8_FLOAT_MASK };

enum oi8_status { OI8_OK, OI8_BAD_ARGUMENT, OI8_OUT_OF_MEMORY, OI8_BAD_INDEX, OI8_UNSUPPORTED_ISA };

typedef struct oi8_value {
  int32_t external;  /* index into oi8_call.external, or -1: in the arena */
  int32_t row_bytes; /* distance between rows; a multiple of 64 for uint8 that feeds a linear or
                        attention */
  int64_t offset;    /* arena: bytes per row that lie before it */
  int32_t periodic;  /* external: holds one batch entry, the same for all */
  int32_t rows;      /* of each batch entry, in a spatial program */
} oi8_value;

/* Fields that an operator does not name are ignored. Value indices are -1 when absent.
 *
 * QUANTIZE   input[0] float32 -> output[0] uint8; static: output_scale, output_zero_point. Dynamic
 * (output[1] >= 0): `groups` ranges per row, scales to output[1], zero points (int32) to output[2];
 * symmetric (zero point 128) when output[2] < 0. LINEAR     weight: int8 [n][k] as panels
 * [ceil(n/32)][ceil(k/64)][2][16][16][4] padded with zeros; weight_sum: each row's sum, padded.
 *            input[0] uint8 -> output[0] float32, or uint8 when output_scale > 0 or output_scales.
 * Row scales in input[1], zero points in input[2] when dynamic. NORM       input[0] float32 (+
 * input[1] float32) -> output[0] float32 normalised, output[1] uint8 of it (static, or row scales
 * to output[2] and zero points to output[3]); `norm` says which; weight, bias float32 or null.
 * ATTENTION  input[0..2] uint8 queries, keys, values at byte `column[0..2]` of their rows;
 * input[3..5] row scales when dynamic (float32, one per head, at element `scale_column[0..2]`) ->
 * output[0] float32, or uint8 when output_scale > 0. EMBEDDING  input[0] int64 ids -> output[0]
 * float32; weight int8 [rows][columns], weight_scale [rows]; `rows`; adds input[1] float32. CONV
 * weight: of each group the panels of a linear, K over kernel rows, kernel columns, channels, or a
 * float32 table of taps (window->depthwise); `groups`; `columns`: all output channels. input[0]
 * uint8, input[1] scale and input[2] zero point of the image when dynamic, input[3] float32, or
 * uint8 on the grid input_scale[1], `residual_zero_point` when input_scale[1] > 0, added after the
 * activation -> output[0] float32, output[1] uint8, either may be absent. `parameter`: slope of a
 * leaky ReLU. MAX_POOL   input[0] -> output[0], both uint8 or (window->floats) float32. AVG_POOL
 * input[0] uint8 on the grid input_scale[0], input_zero_point, or (window->floats) float32 ->
 * output[0] float32, or output[1] uint8 on the grid output_scale, output_zero_point. ADD input[0]
 * uint8 on the grid input_scale[0], input_zero_point (+ input[1] uint8 on input_scale[1], zero
 * point `parameter`)
 *            -> output[0] float32, or uint8 when output_scale > 0, from byte column[2] of its rows
 * on; `columns` are the inputs'. FLOAT_ATTENTION  input[0..2] float32 queries, keys, values at
 * element `column[0..2]` of their rows -> output[0] float32, or uint8 when output_scale > 0;
 * `bfloat16`: on operands rounded to it. QUANTIZE_SAMPLE  input[0] float32 -> output[0] uint8 on a
 * grid for the image, scale to output[1], zero point (int32) to output[2].
 */
typedef struct oi8_window {
  int32_t height, width; /* of the input */
  int32_t out_height, out_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_y, stride_x;
  int32_t top, left; /* padding before the first row and column */
  int32_t dilation_y, dilation_x;
  int32_t depthwise;
  int32_t final;          /* activation after the addition */
  int32_t floats;         /* pooling: of float32 */
  int32_t padding_counts; /* AVG_POOL: in the number that the sum is divided by; as much behind as
                             in front */
} oi8_window;

typedef struct oi8_instruction {
  int32_t op;
  int32_t activation;
  int32_t norm;
  int32_t causal;
  int32_t input[6];
  int32_t output[4];
  int32_t columns;   /* width of the result; N of a linear */
  int32_t reduction; /* K of a linear */
  int32_t groups;    /* dynamic ranges per row; heads of an attention */
  int32_t kv_groups; /* key and value heads of an attention */
  int32_t column[3];
  int32_t scale_column[3];
  int64_t rows;
  const void *weight;
  const float *weight_scale;
  const int32_t *weight_sum;
  const float *bias;
  const float *output_scales; /* LINEAR to uint8: one scale per column, or null for output_scale */
  float input_scale[3];
  int32_t input_zero_point;
  float output_scale;
  int32_t output_zero_point;
  float parameter;  /* eps of a norm, scaling of an attention, second zero point of an ADD */
  int32_t key_side; /* QUANTIZE, LINEAR: the rows are those of keys and values */
  const oi8_window *window; /* CONV and pooling */
  const void
      *prepared; /* LINEAR, CONV: what oi8_prepare_weight made of `weight` for this ISA, or null */
  int32_t bfloat16;
  int32_t residual_zero_point; /* CONV: of input[3] when it is uint8 */
} oi8_instruction;

typedef struct oi8_program {
  const oi8_instruction *instructions;
  const oi8_value *values;
  int32_t instruction_count;
  int32_t value_count;
  int64_t arena_row_bytes; /* bytes of one row of all local values; of all of them when spatial */
  int32_t spatial;
  int32_t reserved;
} oi8_program;

typedef struct oi8_call {
  int32_t batch;
  int32_t length;
  void *const *external;
  const void *mask;
  int32_t mask_kind;
  int32_t key_length; /* length of keys and values; the queries are the last `length` of them when
                         causal */
  int64_t mask_stride[3]; /* elements between batches, heads, queries; keys are adjacent */
  int32_t skip_padding; /* tokens that a padding mask hides need not be computed; their results are
                           then zero */
  int32_t reserved;
} oi8_call;

OI8_EXPORT int oi8_abi(void);
OI8_EXPORT int oi8_isa_built(int isa);     /* compiled into this library */
OI8_EXPORT int oi8_isa_available(int isa); /* built, and this CPU and kernel allow it */
OI8_EXPORT const char *oi8_isa_name(int isa);

/* Some instruction sets multiply faster with a second form of the panels of a weight, made once.
 * Writes it to `out` (64-byte aligned) and returns its bytes, 0 where it would not pay; with `out`
 * null returns how many it may have, 0 where there is none. Results do not depend on it. */
OI8_EXPORT int64_t oi8_prepare_weight(int isa, const void *weight, int64_t panels, int32_t steps,
                                      void *out);

OI8_EXPORT int oi8_run(int isa, const oi8_program *program, const oi8_call *call);

#ifdef __cplusplus
}
#endif

#endif
