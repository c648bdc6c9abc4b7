// NORM: layer norm or RMS norm of rows (of a sum of rows), to float32, to uint8 on a given grid, to uint8 on a grid per row.
// Sums run in the 16-lane order of numerics.py. Rows are divided among threads; any width.
#pragma once

namespace OI8_NAMESPACE {

// v -> (v - mean) * factor * weight + bias. Without a norm the mean is 0 and the factor 1, which change no bit.
struct RowNorm {
  F mean, factor;
  const float *weight, *bias;

  template <class Count>
  inline F operator()(const float *y, int i, Count count) const {
    F v = mul(sub(load(y + i, count), mean), factor);
    if (weight) v = mul(v, load(weight + i, count));
    if (bias) v = add(v, load(bias + i, count));
    return v;
  }
};

// Of a row whose lanes add up to `total`.
inline RowNorm row_norm(const oi8_instruction &o, const float *y, F total) {
  if (o.norm == OI8_NO_NORM) return {set(0.0f), set(1.0f), nullptr, nullptr};
  const float width = 1.0f / static_cast<float>(o.columns);
  const F mean = set(o.norm == OI8_LAYER_NORM ? sum(total) * width : 0.0f);
  F squares = set(0.0f);
  by_16(o.columns, [&](int i, auto count) {
    const F v = sub(load(y + i, count), mean);
    squares = add(squares, keep(count, mul(v, v), set(0.0f)));
  });
  return {mean, set(1.0f / __builtin_sqrtf(sum(squares) * width + o.parameter)), static_cast<const float *>(o.weight), o.bias};
}

inline void norm(const oi8_instruction &o, const Context &ctx) {
  const Range mine = ctx.share(ctx.rows(o));
  const int n = o.columns, pairs = n / 32 * 32;
  const bool floats = o.output[0] >= 0, bytes = o.output[1] >= 0, dynamic = o.output[2] >= 0;
  const Grid fixed(o.output_scale > 0 ? o.output_scale : 1.0f, o.output_zero_point);
  float *temporary = reinterpret_cast<float *>(ctx.scratch);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const float *x = ctx.row<float>(o.input[0], r);
    const float *residual = o.input[1] >= 0 ? ctx.row<float>(o.input[1], r) : nullptr;
    float *y = floats ? ctx.row<float>(o.output[0], r) : temporary;
    F total = set(0.0f);
    by_16(n, [&](int i, auto count) {
      F v = load(x + i, count);
      if (residual) v = add(v, load(residual + i, count));
      store(y + i, v, count);
      total = add(total, v);
    });
    const RowNorm of = row_norm(o, y, total);
    uint8_t *q = bytes ? ctx.row<uint8_t>(o.output[1], r) : nullptr;
    if (!dynamic) {
      for (int i = 0; i < pairs; i += 32) {
        const F v = of(y, i, Whole()), w = of(y, i + 16, Whole());
        if (floats) store(y + i, v), store(y + i + 16, w);
        if (bytes) fixed.store(q + i, v, w);
      }
      by_16(n - pairs, [&](int i, auto count) {
        const F v = of(y, pairs + i, count);
        if (floats) store(y + pairs + i, v, count);
        if (bytes) store_bytes(q + pairs + i, fixed(v), count);
      });
      continue;
    }
    F low = set(0.0f), high = set(0.0f);
    by_16(n, [&](int i, auto count) {
      const F v = of(y, i, count);
      store(y + i, v, count);
      low = min(keep(count, v, low), low), high = max(keep(count, v, high), high);
    });
    quantize_row(y, q, n, affine_grid(smallest(low), largest(high), ctx.row<float>(o.output[2], r), ctx.row<int32_t>(o.output[3], r)));
  }
}

}  // namespace OI8_NAMESPACE
