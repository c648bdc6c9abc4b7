// FLOAT_ATTENTION: softmax(Q K^T * scaling + mask) V on float32 rows, or on the bfloat16 next to them, in the order of numerics_float.py.
// Any head size and length. One task is a key head of one sequence; threads divide the tasks. Its rows are the queries of all heads that
// share the key head. Blocks of keys are walked with running maxima and sums, so that what a group of rows reads stays in L2.
#pragma once
#include "../cpu.h"

namespace OI8_NAMESPACE {

constexpr int KEY_BLOCK = 256;   // of the definition: the results depend on it
constexpr int QUERY_GROUP = 96;  // whole tiles of every product

// Working memory. Blocks of keys stay packed where more than one group of rows reads them.
template <class Product>
struct FloatScratch {
  char *queries, *weight_memory, *keys, *values;
  float *sums, *scores, *peak, *total;
  int64_t key_bytes, value_bytes;  // of a block; nothing where there is one place for all

  static int64_t blocks(int64_t keys, int64_t rows) { return rows > QUERY_GROUP ? (keys + KEY_BLOCK - 1) / KEY_BLOCK : 1; }
  static int64_t bytes(int64_t keys, int64_t rows, int64_t head) {
    const int64_t fixed = Product::query_bytes(QUERY_GROUP, head) + Product::weight_bytes(KEY_BLOCK);
    const int64_t block = Product::key_bytes(KEY_BLOCK, head) + Product::value_bytes(KEY_BLOCK, head);
    return fixed + blocks(keys, rows) * block + 4 * (QUERY_GROUP * (up16(head) + 2) + Product::rows * KEY_BLOCK);
  }
  FloatScratch(char *base, int64_t all, int64_t rows, int64_t head) {
    const int64_t count = blocks(all, rows);
    const auto take = [&](int64_t bytes) { return base += bytes, base - bytes; };
    key_bytes = Product::key_bytes(KEY_BLOCK, head), value_bytes = Product::value_bytes(KEY_BLOCK, head);
    queries = take(Product::query_bytes(QUERY_GROUP, head));
    weight_memory = take(Product::weight_bytes(KEY_BLOCK));
    keys = take(count * key_bytes), values = take(count * value_bytes);
    sums = reinterpret_cast<float *>(take(QUERY_GROUP * up16(head) * 4));
    scores = reinterpret_cast<float *>(take(Product::rows * KEY_BLOCK * 4));
    peak = reinterpret_cast<float *>(take(QUERY_GROUP * 4)), total = reinterpret_cast<float *>(take(QUERY_GROUP * 4));
    if (count == 1) key_bytes = value_bytes = 0;
  }
};

struct FloatTask {
  const float *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;  // floats
  int head, heads, length, keys, kept;   // `heads` share the keys
  float scaling;
  bool causal;
  const uint8_t *bool_mask;
  const float *float_mask;
  int64_t mask_head, mask_query;

  // Keys that a row's query sees, counted from the front.
  int64_t reach(int64_t row) const {
    const int64_t last = row % length + keys - length + 1;
    return causal && last < kept ? last : kept;
  }
  int64_t mask_at(int64_t row) const { return row / length * mask_head + row % length * mask_query; }
};

// exp(step), 0 where that is nothing.
inline __attribute__((noinline)) float worth(float step) {
  alignas(64) float lanes[16];
  store(lanes, where_above(set(step), set(-80.0f), exp(set(step))));
  return lanes[0];
}

// One row's scores of `n` keys from `from` on, to the exponentials of what they lie below the row's largest so far. Returns what the sums
// before this block are worth now.
template <class Product>
inline float weigh_row(const FloatTask &t, int64_t row, int64_t from, int n, float *x, typename Product::Weight *weights, float &peak, float &total) {
  const F masked = set(-1e30f), factor = set(t.scaling);
  const int64_t mask = t.mask_at(row) + from;
  F top = set(peak);
  by_16(n, [&](int j, auto count) {
    F y = mul(load(x + j), factor);
    if (t.bool_mask) y = select(t.bool_mask + mask + j, count, y, masked);
    if (t.float_mask) y = add(y, max(load(t.float_mask + mask + j, count), masked));
    store(x + j, y);
    top = max(keep(count, y, top), top);
  });
  const F limit = set(-80.0f), zero = set(0.0f), largest_yet = set(largest(top));
  F lanes = zero;
  by_16(n, [&](int j, auto count) {
    const F y = sub(load(x + j), largest_yet), e = keep(count, where_above(y, limit, exp(y)), zero);
    lanes = add(lanes, e);
    Product::put(weights + j, e);
  });
  const float step = peak - largest(top);
  peak = largest(top);
  const float before = from == 0 || step == 0.0f ? 1.0f : worth(step);  // in the first block it is of nothing
  total = total * before + sum(lanes);
  return before;
}

// Rows [first, first + count) of a group that begins at `group`, against one packed block of keys.
template <class Product>
inline void attend_block(const FloatTask &t, const FloatScratch<Product> &s, int64_t group, int first, int count, int64_t from, int all, const char *keys, const char *values, int64_t value_stride) {
  int64_t most = 0;
  for (int r = 0; r < count; r++) most = most > t.reach(group + first + r) ? most : t.reach(group + first + r);
  if (most <= from) return;
  const int seen = static_cast<int>(most - from < all ? most - from : all);
  Product::scores(s.queries, first, count, keys, seen, t.head, s.scores, KEY_BLOCK);
  typename Product::Weight *weights = Product::weights(s.scores, s.weight_memory);
  const int64_t width = up16(t.head), padded = (seen + 31) / 32 * 32;
  for (int r = 0; r < count; r++) {
    const int64_t row = group + first + r, reach = t.reach(row) - from;
    const int n = static_cast<int>(reach < 0 ? 0 : reach < seen ? reach : seen);
    typename Product::Weight *line = weights + r * KEY_BLOCK;
    const float before = n ? weigh_row<Product>(t, row, from, n, s.scores + r * KEY_BLOCK, line, s.peak[first + r], s.total[first + r]) : 1.0f;
    const int64_t written = up16(n);
    std::memset(line + written, 0, (padded - written) * sizeof *line);
    float *sums = s.sums + (first + r) * width;
    for (int64_t c = 0; before != 1.0f && c < width; c += 16) store(sums + c, mul(load(sums + c), set(before)));
  }
  Product::weigh(weights, KEY_BLOCK, count, values, value_stride, seen, all, t.head, s.sums + first * width);
}

template <class Product, class Put>
inline void attend_floats(const FloatTask &t, const FloatScratch<Product> &s, Put put) {
  const int64_t rows = int64_t(t.heads) * t.length, width = up16(t.head);
  const bool as_they_lie = rows <= Product::rows && Product::takes_rows(t.head);
  for (int64_t group = 0; group < rows; group += QUERY_GROUP) {
    const int count = static_cast<int>(rows - group < QUERY_GROUP ? rows - group : QUERY_GROUP);
    for (int r = 0; r < count; r++) {
      const int64_t row = group + r;
      Product::pack_query(t.q + row % t.length * t.q_stride + row / t.length * t.head, t.head, s.queries, r);
      s.peak[r] = -1e30f, s.total[r] = 0.0f;
    }
    std::memset(s.sums, 0, count * width * 4);
    for (int64_t from = 0; from < t.kept; from += KEY_BLOCK) {
      const int all = static_cast<int>(t.kept - from < KEY_BLOCK ? t.kept - from : KEY_BLOCK);
      const float *value_rows = t.v + from * t.v_stride;
      char *keys = s.keys + from / KEY_BLOCK * s.key_bytes, *packed = s.values + from / KEY_BLOCK * s.value_bytes;
      if (group == 0) Product::pack_keys(t.k + from * t.k_stride, t.k_stride, all, t.head, keys);
      if (group == 0 && !as_they_lie) Product::pack_values(value_rows, t.v_stride, all, t.head, packed);
      const char *values = as_they_lie ? reinterpret_cast<const char *>(value_rows) : packed;
      for (int r = 0; r < count; r += Product::rows)
        attend_block<Product>(t, s, group, r, count - r < Product::rows ? count - r : Product::rows, from, all, keys, values, as_they_lie ? t.v_stride : 0);
    }
    for (int r = 0; r < count; r++) {
      const F share = set(1.0f / s.total[r]);
      for (int c = 0; c < t.head; c += 16) put(group + r, c, t.head - c, mul(load(s.sums + r * width + c), share));
    }
  }
}

template <class Product>
inline void float_attention_by(const oi8_instruction &o, const Context &ctx) {
  const oi8_call &call = *ctx.call;
  const bool skipping = ctx.memory->kept, to_bytes = o.output_scale > 0;
  const int heads = o.groups, head = o.columns / heads, group = heads / o.kv_groups;
  const Grid grid(to_bytes ? o.output_scale : 1.0f, o.output_zero_point);
  const FloatScratch<Product> scratch(ctx.scratch, call.key_length, int64_t(call.length) * group, head);
  const Range mine = ctx.share(ctx.batch * o.kv_groups);
  for (int64_t task = mine.begin; task < mine.end; task++) {
    const int64_t batch = task / o.kv_groups, kv = task % o.kv_groups, first_row = ctx.begin(batch), first_head = kv * group;
    FloatTask t = {};
    t.length = static_cast<int>(ctx.begin(batch + 1) - first_row), t.keys = skipping ? t.length : call.key_length;
    const int64_t first_key = skipping ? first_row : batch * t.keys;
    t.q = ctx.row<float>(o.input[0], first_row) + o.column[0] + first_head * head;
    t.k = ctx.row<float>(o.input[1], first_key) + o.column[1] + kv * head;
    t.v = ctx.row<float>(o.input[2], first_key) + o.column[2] + kv * head;
    t.q_stride = ctx.row_bytes(o.input[0]) / 4, t.k_stride = ctx.row_bytes(o.input[1]) / 4, t.v_stride = ctx.row_bytes(o.input[2]) / 4;
    t.head = head, t.heads = group, t.kept = skipping ? t.keys : kept_keys(call, ctx.first_batch + batch);
    t.scaling = o.parameter, t.causal = o.causal;
    const int64_t mask_at = (ctx.first_batch + batch) * call.mask_stride[0] + first_head * call.mask_stride[1];
    if (call.mask_kind == OI8_BOOL_MASK && !skipping) t.bool_mask = static_cast<const uint8_t *>(call.mask) + mask_at;
    if (call.mask_kind == OI8_FLOAT_MASK) t.float_mask = static_cast<const float *>(call.mask) + mask_at;
    t.mask_head = call.mask_stride[1], t.mask_query = call.mask_stride[2];
    attend_floats<Product>(t, scratch, [&](int64_t row, int c, int n, F y) {
      const int64_t at = first_row + row % t.length, column = (first_head + row / t.length) * head + c;
      write_16(ctx.row<char>(o.output[0], at), column, n, y, to_bytes, grid);
    });
  }
}

// Calls body with the product that an instruction asks for, on this processor.
template <class Body>
inline auto with_float_product(const oi8_instruction &o, Body body) {
  if (!o.bfloat16) return body(LaneProduct<false>());
#ifdef OI8_BFLOAT16_TILE
  if (cpu_has_bfloat16_tiles()) return body(OI8_BFLOAT16_TILE());
#endif
  return body(LaneProduct<true>());
}

inline int64_t float_attention_scratch(const oi8_instruction &o, const oi8_call &call) {
  const int64_t rows = int64_t(call.length) * (o.groups / o.kv_groups), head = o.columns / o.groups;
  return with_float_product(o, [&](auto product) { return FloatScratch<decltype(product)>::bytes(call.key_length, rows, head); });
}

inline void float_attention(const oi8_instruction &o, const Context &ctx) {
  with_float_product(o, [&](auto product) { float_attention_by<decltype(product)>(o, ctx); });
}

}  // namespace OI8_NAMESPACE
