// NORM: layer norm or RMS norm of rows (of a sum of rows), to float32, to uint8 on a given grid, to uint8 on a grid per row.
// Sums run in the 16-lane order of numerics.py. Rows are divided among threads; any width.
#pragma once

namespace OI8_NAMESPACE {

// y -> (y - mean) * (1 / sqrt(variance + eps)) * weight + bias, in place; `total` is the lane sums of y.
inline void norm_row(float *y, int n, int kind, F total, const float *weight, const float *bias, float eps) {
  const float width = 1.0f / static_cast<float>(n);
  const F mean = set(sum(total) * width);
  F squares = set(0.0f);
  by_16(n, [&](int i, auto count) {
    F v = load(y + i, count);
    if (kind == OI8_LAYER_NORM) store(y + i, v = sub(v, mean), count);
    squares = add(squares, keep(count, mul(v, v), set(0.0f)));
  });
  const F factor = set(1.0f / __builtin_sqrtf(sum(squares) * width + eps));
  by_16(n, [&](int i, auto count) {
    F v = mul(load(y + i, count), factor);
    if (weight) v = mul(v, load(weight + i, count));
    if (bias) v = add(v, load(bias + i, count));
    store(y + i, v, count);
  });
}

inline void norm(const oi8_instruction &o, const Context &ctx) {
  const Range mine = ctx.share(ctx.rows(o));
  const int n = o.columns;
  const bool dynamic = o.output[2] >= 0;
  const Grid fixed(o.output_scale > 0 ? o.output_scale : 1.0f, o.output_zero_point);
  float *temporary = reinterpret_cast<float *>(ctx.scratch);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const float *x = ctx.row<float>(o.input[0], r);
    const float *residual = o.input[1] >= 0 ? ctx.row<float>(o.input[1], r) : nullptr;
    float *y = o.output[0] >= 0 ? ctx.row<float>(o.output[0], r) : temporary;
    F total = set(0.0f);
    by_16(n, [&](int i, auto count) {
      F v = load(x + i, count);
      if (residual) v = add(v, load(residual + i, count));
      store(y + i, v, count);
      total = add(total, v);
    });
    if (o.norm != OI8_NO_NORM) norm_row(y, n, o.norm, total, static_cast<const float *>(o.weight), o.bias, o.parameter);
    if (o.output[1] < 0) continue;
    uint8_t *q = ctx.row<uint8_t>(o.output[1], r);
    quantize_row(y, q, n, dynamic ? affine_grid(y, n, ctx.row<float>(o.output[2], r), ctx.row<int32_t>(o.output[3], r)) : fixed);
  }
}

}  // namespace OI8_NAMESPACE
