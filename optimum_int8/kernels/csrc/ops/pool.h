// MAX_POOL, AVG_POOL: windows over one image of uint8 or float32 pixels; of an average at most 2**23 positions, so that int32 holds its sum. QUANTIZE_SAMPLE: an image to uint8 on one grid for all of it.
// Output pixels are divided among threads; any number of channels.
#pragma once
#include <cstring>

namespace OI8_NAMESPACE {

// The positions of a window that lie in the image.
struct Taps {
  int64_t y, x;   // where the window begins, perhaps in the padding
  int64_t first;  // pixel
  int rows, columns;
  int64_t down, right;  // pixels from one to the next

  Taps(const oi8_window &w, int64_t r) {
    const uint32_t at = static_cast<uint32_t>(r), across = static_cast<uint32_t>(w.out_width);
    y = int64_t(at / across) * w.stride_y - w.top, x = int64_t(at % across) * w.stride_x - w.left;
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
  // Calls body(taps) for pieces of at most `most` positions.
  template <class Body>
  void pieces(int most, Body &&body) const {
    const int across = columns < most ? columns : most, along = across > 0 ? most / across : 1;
    for (int i = 0; i < rows; i += along)
      for (int j = 0; j < columns; j += across) {
        Taps piece = *this;
        piece.first += i * down + j * right;
        piece.rows = rows - i < along ? rows - i : along;
        piece.columns = columns - j < across ? columns - j : across;
        body(piece);
      }
  }

 private:
  static int before(int64_t start, int step) { return start < 0 ? static_cast<int>((-start + step - 1) / step) : 0; }
  static int within(int64_t space, int step, int most) {
    const int64_t n = space <= 0 ? 0 : step == 1 ? space : (space + step - 1) / step;
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

// What a window of an AVG_POOL is divided by: its positions in the image, and in the padding where that counts.
inline int counted(const oi8_window &w, const Taps &taps) {
  const int64_t y = taps.y, x = taps.x;
  const int64_t top = w.padding_counts ? w.top : 0, left = w.padding_counts ? w.left : 0;
  const int64_t bottom = y + w.kernel_height < w.height + top ? y + w.kernel_height : w.height + top;
  const int64_t right = x + w.kernel_width < w.width + left ? x + w.kernel_width : w.width + left;
  return static_cast<int>((bottom - (y > -top ? y : -top)) * (right - (x > -left ? x : -left)));
}

// The mean of one window of bytes: exact sums, then one factor.
struct ByteMean {
  using Sum = I;
  static constexpr int bytes = 1, held = 257;  // sums that 16 bits hold
  I zeros;
  F factor;
  ByteMean(const oi8_instruction &o, const Taps &taps, int count)
      : zeros(set_int(taps.count() * o.input_zero_point)), factor(set(o.input_scale[0] * (1.0f / static_cast<float>(count)))) {}
  template <int N, class Count>
  static void sum(const Taps &taps, const char *image, int64_t distance, I (&sums)[N], Count) {
    for (I &sum : sums) sum = set_int(0);
    taps.pieces(held, [&](const Taps &piece) {
      Shorts shorts[N];
      for (Shorts &some : shorts) some = no_shorts();
      piece.each(image, distance, [&](const char *x) {
        for (int j = 0; j < N; j++) shorts[j] = add_ubytes(shorts[j], x + j * 16);
      });
      for (int j = 0; j < N; j++) sums[j] = add(sums[j], widen(shorts[j]));
    });
  }
  F operator()(I sum) const { return mul(to_float(sub(sum, zeros)), factor); }
};

// Of float32: sums from the first position on, then one division, as PyTorch does it.
struct FloatMean {
  using Sum = F;
  static constexpr int bytes = 4;
  F count;
  FloatMean(const oi8_instruction &, const Taps &, int n) : count(set(static_cast<float>(n))) {}
  template <int N, class Count>
  static void sum(const Taps &taps, const char *image, int64_t distance, F (&sums)[N], Count n) {
    for (F &sum : sums) sum = set(0.0f);
    taps.each(image, distance, [&](const char *x) {
      for (int j = 0; j < N; j++) sums[j] = add(sums[j], load(reinterpret_cast<const float *>(x) + j * 16, n));
    });
  }
  F operator()(F sum) const { return div(sum, count); }
};

// One pixel of a cache line of channels: pieces of a line divide the work of a pool over the whole image.
template <class Mean, class Write>
inline void average(const Mean &mean, const Taps &taps, const char *image, int64_t distance, int begin, int end, Write &&write) {
  constexpr int vectors = 4;
  int c = begin;
  for (; c + 16 * vectors <= end; c += 16 * vectors) {
    typename Mean::Sum sums[vectors];
    Mean::sum(taps, image + c * Mean::bytes, distance, sums, Whole());
    for (int j = 0; j < vectors; j++) write(c + j * 16, mean(sums[j]), Whole());
  }
  by_16(end - c, [&](int i, auto count) {
    typename Mean::Sum sums[1];
    Mean::sum(taps, image + (c + i) * Mean::bytes, distance, sums, count);
    write(c + i, mean(sums[0]), count);
  });
}

template <class Mean>
inline void avg_pool(const oi8_instruction &o, const Context &ctx) {
  constexpr int line = 64;
  const oi8_window &w = *o.window;
  const int64_t lines = (o.columns + line - 1) / line;
  const Range mine = ctx.share(int64_t(w.out_height) * w.out_width * lines);
  const Grid grid(o.output[1] >= 0 ? o.output_scale : 1.0f, o.output_zero_point);
  const char *image = ctx.value<char>(o.input[0]);
  const int64_t distance = ctx.row_bytes(o.input[0]);
  for (int64_t i = mine.begin; i < mine.end;) {
    const int64_t r = i / lines, last = mine.end < (r + 1) * lines ? mine.end : (r + 1) * lines;
    const int begin = static_cast<int>(i - r * lines) * line, some = static_cast<int>(last - r * lines) * line;
    const int end = some < o.columns ? some : o.columns;
    const Taps taps(w, r);
    const Mean mean(o, taps, counted(w, taps));
    if (o.output[1] >= 0) {
      uint8_t *out = ctx.row<uint8_t>(o.output[1], r);
      average(mean, taps, image, distance, begin, end, [&](int c, F x, auto count) { store_bytes(out + c, grid(x), count); });
    } else {
      float *out = ctx.row<float>(o.output[0], r);
      average(mean, taps, image, distance, begin, end, [&](int c, F x, auto count) { store(out + c, x, count); });
    }
    i = last;
  }
}

inline void avg_pool(const oi8_instruction &o, const Context &ctx) { o.window->floats ? avg_pool<FloatMean>(o, ctx) : avg_pool<ByteMean>(o, ctx); }

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
