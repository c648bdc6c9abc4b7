// MAX_POOL, AVG_POOL: windows over one image of uint8 pixels. QUANTIZE_SAMPLE: an image to uint8 on one grid for all of it.
// Output pixels are divided among threads; any number of channels.
#pragma once
#include <cstring>

namespace OI8_NAMESPACE {

// Calls body(pixel) for each position of the window of output pixel r that lies in the image.
template <class Body>
inline void for_window(const oi8_window &w, int64_t r, Body &&body) {
  const int64_t y0 = r / w.out_width * w.stride_y - w.top, x0 = r % w.out_width * w.stride_x - w.left;
  for (int ky = 0; ky < w.kernel_height; ky++) {
    const int64_t y = y0 + ky * w.dilation_y;
    if (y < 0 || y >= w.height) continue;
    for (int kx = 0; kx < w.kernel_width; kx++) {
      const int64_t x = x0 + kx * w.dilation_x;
      if (x >= 0 && x < w.width) body(y * w.width + x);
    }
  }
}

inline void max_pool_floats(const oi8_instruction &o, const Context &ctx) {
  const Range mine = ctx.share(int64_t(o.window->out_height) * o.window->out_width);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    float *out = ctx.row<float>(o.output[0], r);
    by_16(o.columns, [&](int c, auto count) {
      F most = set(-__builtin_inff());
      for_window(*o.window, r, [&](int64_t pixel) { most = max(load(ctx.row<float>(o.input[0], pixel) + c, count), most); });
      store(out + c, most, count);
    });
  }
}

inline void max_pool(const oi8_instruction &o, const Context &ctx) {
  if (o.window->floats) return max_pool_floats(o, ctx);
  const Range mine = ctx.share(int64_t(o.window->out_height) * o.window->out_width);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    uint8_t *__restrict out = ctx.row<uint8_t>(o.output[0], r);
    std::memset(out, 0, o.columns);
    for_window(*o.window, r, [&](int64_t pixel) {
      const uint8_t *__restrict x = ctx.row<uint8_t>(o.input[0], pixel);
      for (int c = 0; c < o.columns; c++) out[c] = out[c] > x[c] ? out[c] : x[c];
    });
  }
}

// The sums are exact; padding counts as the zero point.
inline void avg_pool(const oi8_instruction &o, const Context &ctx) {
  const oi8_window &w = *o.window;
  const Range mine = ctx.share(int64_t(w.out_height) * w.out_width);
  const F factor = set(o.input_scale[0] * (1.0f / static_cast<float>(w.kernel_height * w.kernel_width)));
  for (int64_t r = mine.begin; r < mine.end; r++) {
    float *out = ctx.row<float>(o.output[0], r);
    by_16(o.columns, [&](int c, auto count) {
      I sums = set_int(0);
      int32_t inside = 0;
      for_window(w, r, [&](int64_t pixel) {
        sums = add(sums, load_ubytes(ctx.row<uint8_t>(o.input[0], pixel) + c));
        inside++;
      });
      store(out + c, mul(to_float(sub(sums, set_int(inside * o.input_zero_point))), factor), count);
    });
  }
}

// Every thread looks at the whole image, which costs less than waiting for the others.
inline void quantize_sample(const oi8_instruction &o, const Context &ctx) {
  const int64_t rows = ctx.rows(o);
  F low = set(0.0f), high = set(0.0f);
  for (int64_t r = 0; r < rows; r++) {
    const float *x = ctx.row<float>(o.input[0], r);
    by_16(o.columns, [&](int i, auto count) {
      const F v = load(x + i, count);  // absent lanes are 0, which every range holds
      low = min(v, low);
      high = max(v, high);
    });
  }
  float scale;
  int32_t zero;
  const Grid grid = affine_grid(smallest(low), largest(high), &scale, &zero);
  if (ctx.thread == 0) {
    *ctx.row<float>(o.output[1], 0) = scale;
    *ctx.row<int32_t>(o.output[2], 0) = zero;
  }
  const Range mine = ctx.share(rows);
  for (int64_t r = mine.begin; r < mine.end; r++) quantize_row(ctx.row<float>(o.input[0], r), ctx.row<uint8_t>(o.output[0], r), o.columns, grid);
}

}  // namespace OI8_NAMESPACE
