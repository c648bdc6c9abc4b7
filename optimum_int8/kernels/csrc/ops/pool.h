// MAX_POOL and AVG_POOL: windows over one image of uint8 or float32 pixels. QUANTIZE_SAMPLE: a
// float32 image to uint8 with one scale and zero point for all of it.
//
// Accumulator: of an average of bytes int32, exact up to 2**23 positions, then one factor; of
// float32 the sum from the first position on and one division, as in PyTorch. Any number of
// channels and size of windows; up to 64 bytes past the last pixel are read. Each thread owns a
// share of the output pixels (AVG_POOL: of their lines of 64 channels).
#pragma once
#include <cstring>

#include "quantize.h"

namespace OI8_NAMESPACE {

// The positions of a window that lie in the image.
struct Taps {
  int64_t top, left;  // where the window begins, perhaps in the padding
  int64_t first;      // pixel
  int rows, columns;
  int64_t down, right;  // pixels from one to the next

  Taps(const oi8_window &window, int64_t pixel) {
    const uint32_t pixel_index = static_cast<uint32_t>(pixel),
                   across = static_cast<uint32_t>(window.out_width);
    top = int64_t(pixel_index / across) * window.stride_y - window.top,
    left = int64_t(pixel_index % across) * window.stride_x - window.left;
    const int above = before(top, window.dilation_y), aside = before(left, window.dilation_x);
    first = (top + above * window.dilation_y) * window.width + left + aside * window.dilation_x;
    rows = within(window.height - top, window.dilation_y, window.kernel_height) - above;
    columns = within(window.width - left, window.dilation_x, window.kernel_width) - aside;
    down = int64_t(window.dilation_y) * window.width, right = window.dilation_x;
  }
  int count() const { return rows > 0 && columns > 0 ? rows * columns : 0; }
  // Calls body(address) for each, of pixels of `distance` bytes.
  template <class Body>
  inline __attribute__((always_inline)) void each(const char *image, int64_t distance,
                                                  Body &&body) const {
    const char *line = image + first * distance;
    for (int i = 0; i < rows; i++, line += down * distance) {
      const char *address = line;
      for (int j = 0; j < columns; j++, address += right * distance) body(address);
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
  static int before(int64_t start, int step) {
    return start < 0 ? static_cast<int>((-start + step - 1) / step) : 0;
  }
  static int within(int64_t space, int step, int most) {
    const int64_t positions = space <= 0 ? 0 : step == 1 ? space : (space + step - 1) / step;
    return positions < most ? static_cast<int>(positions) : most;
  }
};

inline void max_pool_floats(const oi8_pool &instruction, const Context &context) {
  const Range mine =
      context.share(int64_t(instruction.window.out_height) * instruction.window.out_width);
  const char *image = context.value<char>(instruction.head.input[OI8_POOL_IMAGE]);
  const int64_t distance = context.row_bytes(instruction.head.input[OI8_POOL_IMAGE]);
  for (int64_t pixel = mine.begin; pixel < mine.end; pixel++) {
    const Taps taps(instruction.window, pixel);
    float *out = context.row<float>(instruction.head.output[OI8_POOL_RESULT], pixel);
    by_16(instruction.columns, [&](int channel, auto count) {
      Floats most = set(-__builtin_inff());
      taps.each(image + channel * 4, distance, [&](const char *source) {
        most = max(load(reinterpret_cast<const float *>(source), count), most);
      });
      store(out + channel, most, count);
    });
  }
}

// 32 channels at a time; what is read past the last is not written.
inline void max_pool(const oi8_pool &instruction, const Context &context) {
  if (instruction.floats) return max_pool_floats(instruction, context);
  const Range mine =
      context.share(int64_t(instruction.window.out_height) * instruction.window.out_width);
  const char *image = context.value<char>(instruction.head.input[OI8_POOL_IMAGE]);
  const int64_t distance = context.row_bytes(instruction.head.input[OI8_POOL_IMAGE]);
  for (int64_t pixel = mine.begin; pixel < mine.end; pixel++) {
    const Taps taps(instruction.window, pixel);
    uint8_t *out = context.row<uint8_t>(instruction.head.output[OI8_POOL_RESULT], pixel);
    for (int channel = 0; channel < instruction.columns; channel += 32) {
      Bytes most = no_bytes();
      taps.each(image + channel, distance,
                [&](const char *source) { most = max(most, load_32(source)); });
      if (channel + 32 <= instruction.columns) {
        store_32(out + channel, most);
        continue;
      }
      uint8_t last[32];
      store_32(last, most);
      std::memcpy(out + channel, last, instruction.columns - channel);
    }
  }
}

// What a window of an AVG_POOL is divided by: its positions in the image, and in the padding where
// that counts.
inline int counted(const oi8_pool &instruction, const Taps &taps) {
  const oi8_window &window = instruction.window;
  const int64_t y = taps.top, x = taps.left;
  const int64_t top = instruction.padding_counts ? window.top : 0,
                left = instruction.padding_counts ? window.left : 0;
  const int64_t bottom = y + window.kernel_height < window.height + top ? y + window.kernel_height
                                                                        : window.height + top;
  const int64_t right =
      x + window.kernel_width < window.width + left ? x + window.kernel_width : window.width + left;
  return static_cast<int>((bottom - (y > -top ? y : -top)) * (right - (x > -left ? x : -left)));
}

// The mean of one window of bytes: exact sums, then one factor.
struct ByteMean {
  using Sum = Ints;
  static constexpr int bytes = 1, held = 257;  // sums that 16 bits hold
  Ints zeros;
  Floats factor;
  ByteMean(const oi8_pool &instruction, const Taps &taps, int count)
      : zeros(set_int(taps.count() * instruction.input_zero_point)),
        factor(set(instruction.input_scale * (1.0f / static_cast<float>(count)))) {}
  template <int Vectors, class Count>
  static void sum(const Taps &taps, const char *image, int64_t distance, Ints (&sums)[Vectors],
                  Count) {
    for (Ints &sum : sums) sum = set_int(0);
    taps.pieces(held, [&](const Taps &piece) {
      Shorts shorts[Vectors];
      for (Shorts &some : shorts) some = no_shorts();
      piece.each(image, distance, [&](const char *source) {
        for (int j = 0; j < Vectors; j++) shorts[j] = add_ubytes(shorts[j], source + j * 16);
      });
      for (int j = 0; j < Vectors; j++) sums[j] = add(sums[j], widen(shorts[j]));
    });
  }
  Floats operator()(Ints sum) const { return mul(to_float(sub(sum, zeros)), factor); }
};

// Of float32: sums from the first position on, then one division, as PyTorch does it.
struct FloatMean {
  using Sum = Floats;
  static constexpr int bytes = 4;
  Floats positions;
  FloatMean(const oi8_pool &, const Taps &, int count)
      : positions(set(static_cast<float>(count))) {}
  template <int Vectors, class Count>
  static void sum(const Taps &taps, const char *image, int64_t distance, Floats (&sums)[Vectors],
                  Count count) {
    for (Floats &sum : sums) sum = set(0.0f);
    taps.each(image, distance, [&](const char *source) {
      for (int j = 0; j < Vectors; j++)
        sums[j] = add(sums[j], load(reinterpret_cast<const float *>(source) + j * 16, count));
    });
  }
  Floats operator()(Floats sum) const { return div(sum, positions); }
};

// One pixel of a cache line of channels: pieces of a line divide the work of a pool over the whole
// image.
template <class Mean, class Write>
inline void average(const Mean &mean, const Taps &taps, const char *image, int64_t distance,
                    int begin, int end, Write &&write) {
  constexpr int vectors = 4;
  int channel = begin;
  for (; channel + 16 * vectors <= end; channel += 16 * vectors) {
    typename Mean::Sum sums[vectors];
    Mean::sum(taps, image + channel * Mean::bytes, distance, sums, Whole());
    for (int j = 0; j < vectors; j++) write(channel + j * 16, mean(sums[j]), Whole());
  }
  by_16(end - channel, [&](int i, auto count) {
    typename Mean::Sum sums[1];
    Mean::sum(taps, image + (channel + i) * Mean::bytes, distance, sums, count);
    write(channel + i, mean(sums[0]), count);
  });
}

template <class Mean>
inline void average_pool(const oi8_pool &instruction, const Context &context) {
  constexpr int line = 64;
  const oi8_window &window = instruction.window;
  const int64_t lines = (instruction.columns + line - 1) / line;
  const Range mine = context.share(int64_t(window.out_height) * window.out_width * lines);
  const Quantization quantization(
      instruction.head.output[OI8_POOL_BYTES] >= 0 ? instruction.output_scale : 1.0f,
      instruction.output_zero_point);
  const char *image = context.value<char>(instruction.head.input[OI8_POOL_IMAGE]);
  const int64_t distance = context.row_bytes(instruction.head.input[OI8_POOL_IMAGE]);
  for (int64_t i = mine.begin; i < mine.end;) {
    const int64_t pixel = i / lines,
                  last = mine.end < (pixel + 1) * lines ? mine.end : (pixel + 1) * lines;
    const int begin = static_cast<int>(i - pixel * lines) * line,
              some = static_cast<int>(last - pixel * lines) * line;
    const int end = some < instruction.columns ? some : instruction.columns;
    const Taps taps(window, pixel);
    const Mean mean(instruction, taps, counted(instruction, taps));
    if (instruction.head.output[OI8_POOL_BYTES] >= 0) {
      uint8_t *out = context.row<uint8_t>(instruction.head.output[OI8_POOL_BYTES], pixel);
      average(mean, taps, image, distance, begin, end, [&](int channel, Floats values, auto count) {
        store_bytes(out + channel, quantization(values), count);
      });
    } else {
      float *out = context.row<float>(instruction.head.output[OI8_POOL_RESULT], pixel);
      average(mean, taps, image, distance, begin, end,
              [&](int channel, Floats values, auto count) { store(out + channel, values, count); });
    }
    i = last;
  }
}

inline void avg_pool(const oi8_pool &instruction, const Context &context) {
  instruction.floats ? average_pool<FloatMean>(instruction, context)
                     : average_pool<ByteMean>(instruction, context);
}

// Every thread looks at the whole image, which costs less than waiting for the others.
inline void quantize_sample(const oi8_quantize_sample &instruction, const Context &context) {
  const int64_t rows = context.rows(instruction.head);
  Floats low = set(0.0f), high = set(0.0f);
  for (int64_t pixel = 0; pixel < rows; pixel++) {
    const float *source = context.row<float>(instruction.head.input[OI8_SAMPLE_FLOATS], pixel);
    by_16(instruction.columns, [&](int i, auto count) {
      const Floats values = load(source + i, count);  // absent lanes are 0, which every range holds
      low = min(values, low);
      high = max(values, high);
    });
  }
  float scale;
  int32_t zero;
  const Quantization quantization =
      affine_quantization(smallest(low), largest(high), &scale, &zero);
  if (context.thread == 0) {
    *context.row<float>(instruction.head.output[OI8_SAMPLE_SCALE], 0) = scale;
    *context.row<int32_t>(instruction.head.output[OI8_SAMPLE_ZERO_POINT], 0) = zero;
  }
  const Range mine = context.share(rows);
  for (int64_t pixel = mine.begin; pixel < mine.end; pixel++)
    quantize_row(context.row<float>(instruction.head.input[OI8_SAMPLE_FLOATS], pixel),
                 context.row<uint8_t>(instruction.head.output[OI8_SAMPLE_BYTES], pixel),
                 instruction.columns, quantization);
}

}  // namespace OI8_NAMESPACE
