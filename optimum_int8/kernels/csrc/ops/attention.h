// ATTENTION: softmax(Q K^T * scaling + mask) V on uint8 queries, keys and values with zero point 128, probabilities uint8, softmax
// float32 in numerics.py's order. One task is one head of one sequence; threads divide the tasks. Keys and values are packed into
// panels in scratch, so that both products are the tile of the linears. Any head size and length.
#pragma once
#include <cstring>

namespace OI8_NAMESPACE {

constexpr int FEW_QUERIES = 4;  // of all heads that share a key head: fewer do not pay for panels of the keys

struct AttentionScratch {
  int8_t *keys, *values;  // panels
  int32_t *key_sum;  // times the queries' zero point
  float *scores;  // [32][keys]
  uint8_t *p;     // [32][keys]
  float *key_scale, *value_scale;  // dynamic
  char *prepared;  // 32 rows of either product

  static int64_t bytes(int64_t length, int64_t head) {
    const int64_t l = up64(length), h = up64(head);
    return 2 * l * h + l * 4 + 32 * l * 4 + 32 * l + 2 * l * 4 + Tile::prepared_bytes(static_cast<int>((l > h ? l : h) / 64)) + 64;
  }
  AttentionScratch(char *base, int64_t length, int64_t head) {
    const int64_t l = up64(length), h = up64(head);
    keys = reinterpret_cast<int8_t *>(base);
    values = keys + l * h;
    key_sum = reinterpret_cast<int32_t *>(values + l * h);
    scores = reinterpret_cast<float *>(key_sum + l);
    key_scale = scores + 32 * l;
    value_scale = key_scale + l;
    p = reinterpret_cast<uint8_t *>(value_scale + l);
    prepared = reinterpret_cast<char *>(p + 32 * l);
  }
};

struct HeadTask {
  const uint8_t *q;
  const uint8_t *k;  // where keys are read as they lie, else null: they are in panels
  int64_t k_stride;
  int64_t q_stride;
  const float *q_scale;  // dynamic: of each query row, at q_scale[r * q_scale_stride]
  int64_t q_scale_stride;
  float scaling;       // log2(e) times the scaling of scores, times the scales of queries and keys when static
  float value_scale;  // static
  int head, length, keys, kept;
  bool dynamic, causal;
  const uint8_t *bool_mask;
  const float *float_mask;
  int64_t mask_stride;

  // Keys that this query sees, counted from the front.
  int64_t reach(int64_t query) const {
    const int64_t last = query + keys - length + 1;
    return causal && last < kept ? last : kept;
  }
};

// Sums of one query as scores without a mask, in powers of two.
inline F score(const AttentionScratch &s, const int32_t *sums, int j, F factor) { return mul(to_float(sub(load(sums + j), load(s.key_sum + j))), factor); }

// Integer scores of one query to uint8 probabilities; returns what one unit of the second product is worth. One factor for all keys and no mask: the
// largest sum is the largest score, and nothing has to be kept.
inline float plain_softmax(const HeadTask &t, const AttentionScratch &s, int n, const int32_t *sums, uint8_t *p) {
  F top = set(-1e30f), total = set(0.0f);
  by_16(n, [&](int j, auto count) { top = max(keep(count, to_float(sub(load(sums + j), load(s.key_sum + j))), top), top); });
  const F factor = set(t.scaling), peak = set(largest(top) * t.scaling);
  const auto level = [&](int j, auto count) {
    const F weight = keep(count, softmax_weight(sub(score(s, sums, j, factor), peak)), set(0.0f));
    total = add(total, weight);
    return to_int(weight);
  };
  const Whole whole;
  const int fours = n / 64 * 64;
  for (int j = 0; j < fours; j += 64) {
    const I a = level(j, whole), b = level(j + 16, whole), c = level(j + 32, whole), d = level(j + 48, whole);
    store_bytes(p + j, a, b, c, d);
  }
  by_16(n - fours, [&](int j, auto count) { store_bytes(p + fours + j, level(fours + j, count)); });
  return t.value_scale / sum(total);
}

// The same with masks, or with the scale of each query, key and value; works in place.
inline float masked_softmax(const HeadTask &t, const AttentionScratch &s, int n, int64_t query, float *e, uint8_t *p) {
  const int32_t *sums = reinterpret_cast<const int32_t *>(e);
  const F masked = set(-1e30f), factor = set(t.dynamic ? t.q_scale[query * t.q_scale_stride] * t.scaling : t.scaling);
  F top = masked;
  by_16(n, [&](int j, auto count) {
    F x = score(s, sums, j, t.dynamic ? mul(factor, load(s.key_scale + j)) : factor);
    if (t.bool_mask) x = select(t.bool_mask + query * t.mask_stride + j, count, x, masked);
    if (t.float_mask) x = add(x, max(mul(load(t.float_mask + query * t.mask_stride + j, count), set(LOG2E)), masked));
    store(e + j, x);
    top = max(keep(count, x, top), top);
  });
  const F peak = set(largest(top));
  F total = set(0.0f), heaviest = set(0.0f);
  by_16(n, [&](int j, auto count) {
    const F weight = keep(count, softmax_weight(sub(load(e + j), peak)), set(0.0f));
    total = add(total, weight);
    if (t.dynamic) {
      const F weighted = mul(weight, load(s.value_scale + j));
      heaviest = max(weighted, heaviest);
      store(e + j, weighted);
    } else {
      store_bytes(p + j, to_int(weight));
    }
  });
  if (!t.dynamic) return t.value_scale / sum(total);
  const float most = largest(heaviest);
  const F to_levels = set(255.0f / most);
  for (int j = 0; j < n; j += 16) store_bytes(p + j, to_int(mul(load(e + j), to_levels)));
  return (most * (1.0f / 255.0f)) / sum(total);
}

inline float softmax_row(const HeadTask &t, const AttentionScratch &s, int64_t query, float *e, uint8_t *p) {
  const int n = static_cast<int>(t.reach(query));
  const bool plain = !t.dynamic && !t.bool_mask && !t.float_mask && t.scaling > 0.0f;
  const float unit = plain ? plain_softmax(t, s, n, reinterpret_cast<const int32_t *>(e), p) : masked_softmax(t, s, n, query, e, p);
  const int64_t written = (n + 15) / 16 * 16;
  if (written < up64(t.keys)) std::memset(p + written, 0, up64(t.keys) - written);
  return unit;
}

// The first n of 16 results to element `column` of a line.
inline void write_16(char *line, int64_t column, int n, F y, bool to_bytes, const Grid &grid) {
  if (to_bytes) {
    uint8_t *out = reinterpret_cast<uint8_t *>(line) + column;
    n >= 16 ? store_bytes(out, grid(y)) : store_bytes(out, grid(y), n);
  } else {
    float *out = reinterpret_cast<float *>(line) + column;
    n >= 16 ? store(out, y) : store(out, y, n);
  }
}

// Where the results of a head go.
struct HeadResults {
  const Context &ctx;
  int value;
  int64_t first_row;
  int column;
  bool to_bytes;
  Grid grid;

  char *line(int64_t row) const { return ctx.row<char>(value, first_row + row) + column * (to_bytes ? 1 : 4); }
  // The first n of 32 results, from column c on.
  inline void write(char *line, int c, int n, F y, F z) const {
    if (to_bytes && n >= 32) return grid.store(reinterpret_cast<uint8_t *>(line) + c, y, z);
    write_16(line, c, n, y, to_bytes, grid);
    if (n > 16) write_16(line, c + 16, n - 16, z, to_bytes, grid);
  }
};

inline void attend(const HeadTask &t, const AttentionScratch &s, const HeadResults &results, Ahead &ahead) {
  const int64_t width = up64(t.keys);
  const int key_steps = (t.head + 63) / 64;
  Ahead nothing;
  alignas(64) int32_t sums[Tile::rows * 32];
  int32_t *scores = reinterpret_cast<int32_t *>(s.scores);
  for (int64_t q = 0; q < t.length; q += Tile::rows) {
    const int rows = static_cast<int>(t.length - q < Tile::rows ? t.length - q : Tile::rows);
    const int64_t reach = t.reach(q + rows - 1);
    if (t.k) {
      for (int r = 0; r < rows; r++) score_one(t.q + (q + r) * t.q_stride, t.k, t.k_stride, static_cast<int>(reach), t.head, scores + r * width);
    } else {
      const typename Tile::Rows queries = Tile::prepare(t.q + q * t.q_stride, t.q_stride, rows, t.head, s.prepared);
      for (int64_t k = 0; k < reach; k += 32) Tile::block(queries, rows, s.keys + k / 32 * key_steps * 2048, key_steps, scores + k, width, nothing, [](int) {});
    }
    float unit[Tile::rows];
    char *line[Tile::rows];
    for (int r = 0; r < rows; r++) {
      unit[r] = softmax_row(t, s, q + r, s.scores + r * width, s.p + r * width);
      line[r] = results.line(q + r);
      if (ahead.at < ahead.end) ahead.fetch(ahead.lines);
    }
    const int value_steps = static_cast<int>(up64(reach) / 64);
    const typename Tile::Rows probabilities = Tile::prepare(s.p, width, rows, static_cast<int>(reach), s.prepared);
    for (int c = 0; c < t.head; c += 32) {
      const int8_t *panel = s.values + c / 32 * (width / 64) * 2048;
      alignas(64) int32_t value_sum[32] = {};
      if (Tile::offset) Tile::column_sums(panel, static_cast<int>(reach), value_sum);
      Tile::block(probabilities, rows, panel, value_steps, sums, 32, nothing, [](int) {});
      const I correction0 = mul(load(value_sum), set_int(Tile::offset)), correction1 = mul(load(value_sum + 16), set_int(Tile::offset));
      for (int r = 0; r < rows; r++) {
        const F y = mul(to_float(add(load(sums + r * 32), correction0)), set(unit[r])), z = mul(to_float(add(load(sums + r * 32 + 16), correction1)), set(unit[r]));
        results.write(line[r], c, t.head - c, y, z);
      }
    }
  }
}

// Keys that some query of this sequence sees, counted from the front: padding at the end costs nothing.
inline int kept_keys(const oi8_call &call, int64_t batch) {
  if (call.mask_kind != OI8_BOOL_MASK || call.mask_stride[2] != 0 || call.mask_stride[1] != 0) return call.key_length;
  const uint8_t *mask = static_cast<const uint8_t *>(call.mask) + batch * call.mask_stride[0];
  int n = call.key_length;
  while (n > 0 && !mask[n - 1]) n--;
  return n > 0 ? n : call.key_length;
}

inline void attention(const oi8_instruction &o, const Context &ctx) {
  const oi8_call &call = *ctx.call;
  const bool skipping = ctx.memory->kept;  // then every token that is left is seen by every other
  const int heads = o.groups, head = o.columns / heads, group = heads / o.kv_groups;
  const bool dynamic = o.input[3] >= 0, to_bytes = o.output_scale > 0;
  const Grid grid(to_bytes ? o.output_scale : 1.0f, o.output_zero_point);
  const AttentionScratch scratch(ctx.scratch, call.key_length, head);
  const Range mine = ctx.share(ctx.batch * o.kv_groups);
  Ahead ahead = ahead_of(next_linear(o, ctx, 512 << 10), (mine.end - mine.begin) * group, call.length);  // it reads little memory itself
  for (int64_t task = mine.begin; task < mine.end; task++) {
    const int64_t batch = task / o.kv_groups, kv = task % o.kv_groups, first_row = ctx.begin(batch);
    const int length = static_cast<int>(ctx.begin(batch + 1) - first_row), keys = skipping ? length : call.key_length;
    const int64_t first_key = skipping ? first_row : batch * keys;
    const uint8_t *key_rows = ctx.row<uint8_t>(o.input[1], first_key) + o.column[1] + kv * head;
    const bool few = length * group <= FEW_QUERIES;
    if (few) std::memset(scratch.key_sum, 0, up64(keys) * sizeof(int32_t));
    else pack_keys(key_rows, ctx.row_bytes(o.input[1]), keys, head, scratch.keys, scratch.key_sum);
    pack_values(ctx.row<uint8_t>(o.input[2], first_key) + o.column[2] + kv * head, ctx.row_bytes(o.input[2]), keys, head, scratch.values);
    for (int j = 0; dynamic && j < keys; j++) {
      scratch.key_scale[j] = ctx.row<float>(o.input[4], first_key + j)[o.scale_column[1] + kv];
      scratch.value_scale[j] = ctx.row<float>(o.input[5], first_key + j)[o.scale_column[2] + kv];
    }
    for (int64_t h = kv * group; h < (kv + 1) * group; h++) {
      HeadTask t = {};
      t.q = ctx.row<uint8_t>(o.input[0], first_row) + o.column[0] + h * head;
      t.q_stride = ctx.row_bytes(o.input[0]);
      if (few) t.k = key_rows, t.k_stride = ctx.row_bytes(o.input[1]);
      t.head = head, t.length = length, t.keys = keys, t.kept = skipping ? keys : kept_keys(call, ctx.first_batch + batch), t.dynamic = dynamic, t.causal = o.causal;
      const float scaling = o.parameter * LOG2E;
      t.scaling = dynamic ? scaling : (o.input_scale[0] * scaling) * o.input_scale[1];
      if (dynamic) t.q_scale = ctx.row<float>(o.input[3], first_row) + o.scale_column[0] + h, t.q_scale_stride = ctx.row_bytes(o.input[3]) / 4;
      t.value_scale = o.input_scale[2];
      const int64_t mask_at = (ctx.first_batch + batch) * call.mask_stride[0] + h * call.mask_stride[1];
      if (call.mask_kind == OI8_BOOL_MASK && !skipping) t.bool_mask = static_cast<const uint8_t *>(call.mask) + mask_at;
      if (call.mask_kind == OI8_FLOAT_MASK) t.float_mask = static_cast<const float *>(call.mask) + mask_at;
      t.mask_stride = call.mask_stride[2];
      attend(t, scratch, {ctx, o.output[0], first_row, static_cast<int>(h) * head, to_bytes, grid}, ahead);
    }
  }
}

}  // namespace OI8_NAMESPACE
