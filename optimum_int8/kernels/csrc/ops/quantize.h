// QUANTIZE: float32 rows to uint8, on a given grid or on one grid per row and group.
// Rows are divided among threads; any width.
#pragma once

namespace OI8_NAMESPACE {

inline void quantize_row(const float *x, uint8_t *q, int n, const Grid &grid) {
  int i = 0;
  for (; i + 32 <= n; i += 32) grid.store(q + i, load(x + i), load(x + i + 16));
  by_16(n - i, [&](int k, auto count) { store_bytes(q + i + k, grid(load(x + i + k, count)), count); });
}

// The grid of numerics.affine_qparams; writes scale and zero point.
inline Grid affine_grid(float bottom, float top, float *scale, int32_t *zero_point) {
  float s = (top - bottom) * (1.0f / 255.0f);
  s = s > 0x1p-126f ? s : 0x1p-126f;
  float z = (0.0f - bottom) * (1.0f / s);
  z = z > 0.0f ? (z < 255.0f ? z : 255.0f) : 0.0f;
  *scale = s;
  *zero_point = static_cast<int32_t>(__builtin_rintf(z));
  return Grid(s, *zero_point);
}

inline Grid affine_grid(const float *x, int n, float *scale, int32_t *zero_point) {
  F low = set(0.0f), high = set(0.0f);
  by_16(n, [&](int i, auto count) {
    const F v = load(x + i, count);  // absent lanes are 0, which every range holds
    low = min(v, low);
    high = max(v, high);
  });
  return affine_grid(smallest(low), largest(high), scale, zero_point);
}

inline Grid symmetric_grid(const float *x, int n, float *scale) {
  F high = set(0.0f);
  by_16(n, [&](int i, auto count) { high = max(absolute(load(x + i, count)), high); });
  float s = largest(high) / 127.0f;
  *scale = s = s > 0x1p-126f ? s : 0x1p-126f;
  return Grid(s, 128);
}

inline void quantize(const oi8_instruction &o, const Context &ctx) {
  const Range mine = ctx.share(ctx.rows(o));
  const bool dynamic = o.output[1] >= 0, symmetric = o.output[2] < 0;
  const Grid fixed(dynamic ? 1.0f : o.output_scale, o.output_zero_point);
  const int width = dynamic ? o.columns / o.groups : o.columns;
  if (!dynamic && ctx.program->spatial && ctx.row_bytes(o.input[0]) == width * 4 && ctx.row_bytes(o.output[0]) == width) {
    // pixels may have very few channels
    quantize_row(ctx.row<float>(o.input[0], mine.begin), ctx.row<uint8_t>(o.output[0], mine.begin), static_cast<int>(mine.end - mine.begin) * width, fixed);
    return;
  }
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const float *x = ctx.row<float>(o.input[0], r);
    uint8_t *q = ctx.row<uint8_t>(o.output[0], r);
    if (!dynamic) {
      quantize_row(x, q, width, fixed);
      continue;
    }
    float *scale = ctx.row<float>(o.output[1], r);
    for (int g = 0; g < o.groups; g++, x += width, q += width) {
      int32_t *zero = symmetric ? nullptr : ctx.row<int32_t>(o.output[2], r) + g;
      quantize_row(x, q, width, symmetric ? symmetric_grid(x, width, scale + g) : affine_grid(x, width, scale + g, zero));
    }
  }
}

}  // namespace OI8_NAMESPACE
