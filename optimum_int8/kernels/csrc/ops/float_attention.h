// FLOAT_ATTENTION: softmax(Q K^T * scaling + mask) V on float32 rows, or on the bfloat16 next to
// them.
//
// Accumulator: float32, each product added with one rounding, in the order of
// numerics/attention_float.py; tiles of bfloat16 (isa/tile_bf16_amx.h) add in their own order.
// Blocks of KEY_BLOCK keys with running maxima and sums, so that what a group of rows reads stays
// in L2. Any head size, length and mask. A task is a key head of one sequence; its rows are the
// queries of all heads that share the key head. Each thread owns a share of the tasks.
#pragma once
#include <cstring>

#include "../cpu.h"
#include "attention.h"
#include "float_product.h"

namespace OI8_NAMESPACE {

constexpr int KEY_BLOCK = 256;   // of the definition: the results depend on it
constexpr int QUERY_GROUP = 96;  // whole tiles of every product

// Working memory. Blocks of keys stay packed where more than one group of rows reads them.
template <class Product>
struct FloatScratch {
  char *queries, *weight_memory, *keys, *values;
  float *sums, *scores, *peak, *total;
  int64_t key_bytes, value_bytes;  // of a block; nothing where there is one place for all

  static int64_t blocks(int64_t keys, int64_t rows) {
    return rows > QUERY_GROUP ? (keys + KEY_BLOCK - 1) / KEY_BLOCK : 1;
  }
  static int64_t bytes(int64_t keys, int64_t rows, int64_t head) {
    const int64_t fixed =
        Product::query_bytes(QUERY_GROUP, head) + Product::weight_bytes(KEY_BLOCK);
    const int64_t block =
        Product::key_bytes(KEY_BLOCK, head) + Product::value_bytes(KEY_BLOCK, head);
    return fixed + blocks(keys, rows) * block +
           4 * (QUERY_GROUP * (up_to_lanes(head) + 2) + Product::rows * KEY_BLOCK);
  }
  FloatScratch(char *base, int64_t all, int64_t rows, int64_t head) {
    const int64_t count = blocks(all, rows);
    const auto take = [&](int64_t bytes) { return base += bytes, base - bytes; };
    key_bytes = Product::key_bytes(KEY_BLOCK, head),
    value_bytes = Product::value_bytes(KEY_BLOCK, head);
    queries = take(Product::query_bytes(QUERY_GROUP, head));
    weight_memory = take(Product::weight_bytes(KEY_BLOCK));
    keys = take(count * key_bytes), values = take(count * value_bytes);
    sums = reinterpret_cast<float *>(take(QUERY_GROUP * up_to_lanes(head) * 4));
    scores = reinterpret_cast<float *>(take(Product::rows * KEY_BLOCK * 4));
    peak = reinterpret_cast<float *>(take(QUERY_GROUP * 4)),
    total = reinterpret_cast<float *>(take(QUERY_GROUP * 4));
    if (count == 1) key_bytes = value_bytes = 0;
  }
};

struct FloatTask {
  const float *query_rows, *key_rows, *value_rows;
  int64_t q_stride, k_stride, v_stride;  // floats
  int head, heads, length, keys, kept;   // `heads` share the keys
  float scaling;
  float softcap;
  bool causal;
  const uint8_t *bool_mask;
  const float *float_mask;
  int64_t mask_head, mask_query;

  // Keys that a row's query sees, counted from the front.
  int64_t reach(int64_t row) const {
    const int64_t last = row % length + keys - length + 1;
    return causal && last < kept ? last : kept;
  }
  int64_t mask_at(int64_t row) const {
    return row / length * mask_head + row % length * mask_query;
  }
};

// exp(step), 0 where that is nothing.
inline __attribute__((noinline)) float rescaling(float step) {
  alignas(64) float lanes[16];
  store(lanes, where_above(set(step), set(-80.0f), exp(set(step))));
  return lanes[0];
}

// One row's scores of `n` keys from `from` on, to the exponentials of what they lie below the row's
// largest so far. Returns what the sums before this block are worth now.
template <class Product>
inline float weigh_row(const FloatTask &task, int64_t row, int64_t from, int visible, float *scores,
                       typename Product::Weight *weights, float &peak, float &total) {
  const Floats masked = set(-1e30f), factor = set(task.scaling),
               inverse_cap = set(task.softcap > 0.0f ? 1.0f / task.softcap : 0.0f);
  const int64_t mask = task.mask_at(row) + from;
  Floats top = set(peak);
  by_16(visible, [&](int key, auto count) {
    Floats score = mul(load(scores + key), factor);
    if (task.softcap > 0.0f) score = mul(tanh(mul(score, inverse_cap)), set(task.softcap));
    if (task.bool_mask) score = select(task.bool_mask + mask + key, count, score, masked);
    if (task.float_mask) score = add(score, max(load(task.float_mask + mask + key, count), masked));
    store(scores + key, score);
    top = max(keep(count, score, top), top);
  });
  const Floats limit = set(-80.0f), zero = set(0.0f), largest_yet = set(largest(top));
  Floats lanes = zero;
  by_16(visible, [&](int key, auto count) {
    const Floats score = sub(load(scores + key), largest_yet),
                 exponential = keep(count, where_above(score, limit, exp(score)), zero);
    lanes = add(lanes, exponential);
    Product::put(weights + key, exponential);
  });
  const float step = peak - largest(top);
  peak = largest(top);
  const float before =
      from == 0 || step == 0.0f ? 1.0f : rescaling(step);  // in the first block it is of nothing
  total = total * before + sum(lanes);
  return before;
}

// Rows [first, first + count) of a group that begins at `group`, against one packed block of keys.
template <class Product>
inline void attend_block(const FloatTask &task, const FloatScratch<Product> &scratch, int64_t group,
                         int first, int count, int64_t from, int all, const char *keys,
                         const char *values, int64_t value_stride) {
  int64_t most = 0;
  for (int row_index = 0; row_index < count; row_index++)
    most =
        most > task.reach(group + first + row_index) ? most : task.reach(group + first + row_index);
  if (most <= from) return;
  const int seen = static_cast<int>(most - from < all ? most - from : all);
  Product::scores(scratch.queries, first, count, keys, seen, task.head, scratch.scores, KEY_BLOCK);
  typename Product::Weight *weights = Product::weights(scratch.scores, scratch.weight_memory);
  const int64_t width = up_to_lanes(task.head), padded = (seen + 31) / 32 * 32;
  for (int row_index = 0; row_index < count; row_index++) {
    const int64_t row = group + first + row_index, reach = task.reach(row) - from;
    const int visible = static_cast<int>(reach < 0 ? 0 : reach < seen ? reach : seen);
    typename Product::Weight *line = weights + row_index * KEY_BLOCK;
    const float before = visible ? weigh_row<Product>(task, row, from, visible,
                                                      scratch.scores + row_index * KEY_BLOCK, line,
                                                      scratch.peak[first + row_index],
                                                      scratch.total[first + row_index])
                                 : 1.0f;
    const int64_t written = up_to_lanes(visible);
    std::memset(line + written, 0, (padded - written) * sizeof *line);
    float *sums = scratch.sums + (first + row_index) * width;
    for (int64_t column = 0; before != 1.0f && column < width; column += 16)
      store(sums + column, mul(load(sums + column), set(before)));
  }
  Product::weigh(weights, KEY_BLOCK, count, values, value_stride, seen, all, task.head,
                 scratch.sums + first * width);
}

template <class Product, class Put>
inline void attend_floats(const FloatTask &task, const FloatScratch<Product> &scratch, Put put) {
  const int64_t rows = int64_t(task.heads) * task.length, width = up_to_lanes(task.head);
  const bool as_they_lie = rows <= Product::rows && Product::takes_rows(task.head);
  for (int64_t group = 0; group < rows; group += QUERY_GROUP) {
    const int count = static_cast<int>(rows - group < QUERY_GROUP ? rows - group : QUERY_GROUP);
    for (int row_index = 0; row_index < count; row_index++) {
      const int64_t row = group + row_index;
      Product::pack_query(
          task.query_rows + row % task.length * task.q_stride + row / task.length * task.head,
          task.head, scratch.queries, row_index);
      scratch.peak[row_index] = -1e30f, scratch.total[row_index] = 0.0f;
    }
    std::memset(scratch.sums, 0, count * width * 4);
    for (int64_t from = 0; from < task.kept; from += KEY_BLOCK) {
      const int all = static_cast<int>(task.kept - from < KEY_BLOCK ? task.kept - from : KEY_BLOCK);
      const float *value_rows = task.value_rows + from * task.v_stride;
      char *keys = scratch.keys + from / KEY_BLOCK * scratch.key_bytes,
           *packed = scratch.values + from / KEY_BLOCK * scratch.value_bytes;
      if (group == 0)
        Product::pack_keys(task.key_rows + from * task.k_stride, task.k_stride, all, task.head,
                           keys);
      if (group == 0 && !as_they_lie)
        Product::pack_values(value_rows, task.v_stride, all, task.head, packed);
      const char *values = as_they_lie ? reinterpret_cast<const char *>(value_rows) : packed;
      for (int row_index = 0; row_index < count; row_index += Product::rows)
        attend_block<Product>(task, scratch, group, row_index,
                              count - row_index < Product::rows ? count - row_index : Product::rows,
                              from, all, keys, values, as_they_lie ? task.v_stride : 0);
    }
    for (int row_index = 0; row_index < count; row_index++) {
      const Floats share = set(1.0f / scratch.total[row_index]);
      for (int column = 0; column < task.head; column += 16)
        put(group + row_index, column, task.head - column,
            mul(load(scratch.sums + row_index * width + column), share));
    }
  }
}

template <class Product>
inline void float_attention_by(const oi8_float_attention &instruction, const Context &context) {
  const oi8_call &call = *context.call;
  const oi8_keys &given = context.keys(instruction.head);
  const bool skipping = context.memory->kept, to_bytes = instruction.output_scale > 0;
  const int heads = instruction.heads, head = instruction.columns / heads,
            group = heads / instruction.key_heads;
  const Quantization quantization(to_bytes ? instruction.output_scale : 1.0f,
                                  instruction.output_zero_point);
  const FloatScratch<Product> scratch(context.scratch, given.length, int64_t(call.length) * group,
                                      head);
  const Range mine = context.share(context.batch * instruction.key_heads);
  for (int64_t task = mine.begin; task < mine.end; task++) {
    const int64_t batch = task / instruction.key_heads, key_head = task % instruction.key_heads,
                  first_row = context.begin(batch), first_head = key_head * group;
    FloatTask head_task = {};
    head_task.length = static_cast<int>(context.begin(batch + 1) - first_row),
    head_task.keys = skipping ? head_task.length : given.length;
    const int64_t first_key = skipping ? first_row : batch * head_task.keys;
    head_task.query_rows =
        context.row<float>(instruction.head.input[OI8_ATTENTION_QUERIES], first_row) +
        instruction.column[0] + first_head * head;
    head_task.key_rows = context.row<float>(instruction.head.input[OI8_ATTENTION_KEYS], first_key) +
                         instruction.column[1] + key_head * head;
    head_task.value_rows =
        context.row<float>(instruction.head.input[OI8_ATTENTION_VALUES], first_key) +
        instruction.column[2] + key_head * head;
    head_task.q_stride = context.row_bytes(instruction.head.input[OI8_ATTENTION_QUERIES]) / 4,
    head_task.k_stride = context.row_bytes(instruction.head.input[OI8_ATTENTION_KEYS]) / 4,
    head_task.v_stride = context.row_bytes(instruction.head.input[OI8_ATTENTION_VALUES]) / 4;
    head_task.head = head, head_task.heads = group,
    head_task.kept = skipping ? head_task.keys : kept_keys(given, context.first_batch + batch);
    head_task.scaling = instruction.scaling, head_task.softcap = instruction.softcap;
    head_task.causal = instruction.causal;
    const int64_t mask_at =
        (context.first_batch + batch) * given.mask_stride[0] + first_head * given.mask_stride[1];
    if (given.mask_kind == OI8_BOOL_MASK && !skipping)
      head_task.bool_mask = static_cast<const uint8_t *>(given.mask) + mask_at;
    if (given.mask_kind == OI8_FLOAT_MASK)
      head_task.float_mask = static_cast<const float *>(given.mask) + mask_at;
    head_task.mask_head = given.mask_stride[1], head_task.mask_query = given.mask_stride[2];
    attend_floats<Product>(
        head_task, scratch, [&](int64_t row, int first_column, int count, Floats values) {
          const int64_t row_index = first_row + row % head_task.length,
                        column = (first_head + row / head_task.length) * head + first_column;
          write_16(context.row<char>(instruction.head.output[OI8_ATTENTION_RESULT], row_index),
                   column, count, values, to_bytes, quantization);
        });
  }
}

// Calls body with the product that an instruction asks for, on this processor.
template <class Body>
inline auto with_float_product(const oi8_float_attention &instruction, Body body) {
  if (!instruction.bfloat16) return body(LaneProduct<false>());
#ifdef OI8_BFLOAT16_TILE
  if (cpu_has_bfloat16_tiles()) return body(OI8_BFLOAT16_TILE());
#endif
  return body(LaneProduct<true>());
}

inline int64_t float_attention_scratch(const oi8_float_attention &instruction,
                                       const oi8_call &call) {
  const int64_t rows = int64_t(call.length) * (instruction.heads / instruction.key_heads),
                head = instruction.columns / instruction.heads;
  return with_float_product(instruction, [&](auto product) {
    return FloatScratch<decltype(product)>::bytes(keys_of(call, instruction.head).length, rows,
                                                  head);
  });
}

inline void float_attention(const oi8_float_attention &instruction, const Context &context) {
  with_float_product(instruction, [&](auto product) {
    float_attention_by<decltype(product)>(instruction, context);
  });
}

}  // namespace OI8_NAMESPACE
