// MAX_POOL, AVG_POOL: windows over one image of uint8 pixels. QUANTIZE_SAMPLE: an image to uint8 on one grid for all of it.
// Output pixels are divided among threads; any number of channels.
#pragma once
#include <cstring>

namespace OI8_NAMESPACE {

// The positions of a window that lie in the image.
struct Taps {
  int64_t first;  // pixel
  int rows, columns;
  int64_t down, right;  // pixels from one to the next

  Taps(const oi8_window &w, int64_t r) {
    const int64_t y = r / w.out_width * w.stride_y - w.top, x = r % w.out_width * w.stride_x - w.left;
    const int above = before(y, w.dilation_y), aside = before(x, w.dilation_x);
    first = (y + above * w.dilation_y) * w.width + x + aside * w.dilation_x;
    rows = within(w.height - y, w.dilation_y, w.kernel_height) - above;
    columns = within(w.width - x, w.dilation_x, w.kernel_width) - aside;
    down = int64_t(w.dilation_y) * w.width, right = w.dilation_x;
  }
  int count() const { return rows > 0 && columns > 0 ? rows * columns : 0; }
  // Calls body(address) for each, of pixels of `distance` bytes.
  template <class Body>
  inline __attribute__((always_inline)) void each(const char *image, int64_t distance, Body &&body) const {
    const char *line = image + first * distance;
    for (int i = 0; i < rows; i++, line += down * distance) {
      const char *at = line;
      for (int j = 0; j < columns; j++, at += right * distance) body(at);
    }
  }

 private:
  static int before(int64_t start, int step) { return start < 0 ? static_cast<int>((-start + step - 1) / step) : 0; }
  static int within(int64_t space, int step, int most) {
    const int64_t n = space > 0 ? (space + step - 1) / step : 0;
    return n < most ? static_cast<int>(n) : most;
  }
};

inline void max_pool_floats(const oi8_instruction &o, const Context &ctx) {
  const Range mine = ctx.share(int64_t(o.window->out_height) * o.window->out_width);
  const char *image = ctx.value<char>(o.input[0]);
  const int64_t distance = ctx.row_bytes(o.input[0]);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const Taps taps(*o.window, r);
    float *out = ctx.row<float>(o.output[0], r);
    by_16(o.columns, [&](int c, auto count) {
      F most = set(-__builtin_inff());
      taps.each(image + c * 4, distance, [&](const char *x) { most = max(load(reinterpret_cast<const float *>(x), count), most); });
      store(out + c, most, count);
    });
  }
}

// 32 channels at a time; what is read past the last is not written.
inline void max_pool(const oi8_instruction &o, const Context &ctx) {
  if (o.window->floats) return max_pool_floats(o, ctx);
  const Range mine = ctx.share(int64_t(o.window->out_height) * o.window->out_width);
  const char *image = ctx.value<char>(o.input[0]);
  const int64_t distance = ctx.row_bytes(o.input[0]);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const Taps taps(*o.window, r);
    uint8_t *out = ctx.row<uint8_t>(o.output[0], r);
    for (int c = 0; c < o.columns; c += 32) {
      Bytes most = no_bytes();
      taps.each(image + c, distance, [&](const char *x) { most = max(most, load_32(x)); });
      if (c + 32 <= o.columns) {
        store_32(out + c, most);
        continue;
      }
      uint8_t last[32];
      store_32(last, most);
      std::memcpy(out + c, last, o.columns - c);
    }
  }
}

// The sums are exact; padding counts as the zero point.
inline void avg_pool(const oi8_instruction &o, const Context &ctx) {
  const oi8_window &w = *o.window;
  const Range mine = ctx.share(int64_t(w.out_height) * w.out_width);
  const F factor = set(o.input_scale[0] * (1.0f / static_cast<float>(w.kernel_height * w.kernel_width)));
  const char *image = ctx.value<char>(o.input[0]);
  const int64_t distance = ctx.row_bytes(o.input[0]);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const Taps taps(w, r);
    const I zeros = set_int(taps.count() * o.input_zero_point);
    float *out = ctx.row<float>(o.output[0], r);
    by_16(o.columns, [&](int c, auto count) {
      I sums = set_int(0);
      taps.each(image + c, distance, [&](const char *x) { sums = add(sums, load_ubytes(reinterpret_cast<const uint8_t *>(x))); });
      store(out + c, mul(to_float(sub(sums, zeros)), factor), count);
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
