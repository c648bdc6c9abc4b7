// How a CONV reaches the pixels of its windows: gathered one after another, or, for a tile whose
// rows may be spans of bytes from anywhere, in place, in the image or in a copy of some of its
// lines with padding around them. Every size is free; 16 bytes past the end of a window are
// written.
#pragma once
#include <cstring>

#include "conv_epilogue.h"

namespace OI8_NAMESPACE {

// Both write whole 16 bytes: what they write too much lies where the next bytes of a window go, or
// in the scratch's slack.
inline void copy_over(uint8_t *target, const uint8_t *from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 16) std::memcpy(target + i, from + i, 16);
}
inline void fill_over(uint8_t *target, int value, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 16) std::memset(target + i, value, 16);
}

// `lines` spans of bytes, `distance` apart, one after another.
template <int Chunks>
inline void copy_lines(uint8_t *target, const uint8_t *from, int lines, int64_t distance,
                       int64_t run) {
  for (int i = 0; i < lines; i++, target += run, from += distance)
    for (int chunk = 0; chunk < Chunks; chunk++)
      std::memcpy(target + chunk * 16, from + chunk * 16, 16);
}

inline void copy_window(uint8_t *target, const uint8_t *from, int lines, int64_t distance,
                        int64_t run) {
  if (run <= 16) return copy_lines<1>(target, from, lines, distance, run);
  if (run <= 32) return copy_lines<2>(target, from, lines, distance, run);
  if (run <= 48) return copy_lines<3>(target, from, lines, distance, run);
  for (int i = 0; i < lines; i++) copy_over(target + i * run, from + i * distance, run);
}

// The windows of output pixels [first, first + count), one after another `lda` bytes apart, of
// `channels` channels from `column` on.
inline void gather(const ConvArguments &args, int64_t first, int64_t count, int column,
                   int channels, uint8_t *target, int64_t lda) {
  const oi8_window &window = *args.window;
  const bool together = window.dilation_x == 1 &&
                        channels == args.pixel_bytes;  // a row of the kernel is one run of bytes
  const int64_t run = int64_t(window.kernel_width) * channels,
                reach_y = int64_t(window.kernel_height - 1) * window.dilation_y;
  int64_t out_y = first / window.out_width, out_x = first % window.out_width;
  for (int64_t row = 0; row < count; row++, target += lda) {
    const int64_t first_y = out_y * window.stride_y - window.top,
                  first_x = out_x * window.stride_x - window.left;
    if (++out_x == window.out_width) out_x = 0, out_y++;
    if (together && first_y >= 0 && first_y + reach_y < window.height && first_x >= 0 &&
        first_x + window.kernel_width <= window.width) {
      copy_window(target, args.image + (first_y * window.width + first_x) * channels,
                  window.kernel_height, int64_t(window.dilation_y) * window.width * channels, run);
      continue;
    }
    uint8_t *line = target;
    for (int kernel_y = 0; kernel_y < window.kernel_height; kernel_y++, line += run) {
      const int64_t y = first_y + kernel_y * window.dilation_y;
      if (y < 0 || y >= window.height) {
        fill_over(line, args.zero, run);
        continue;
      }
      const uint8_t *source = args.image + y * window.width * args.pixel_bytes + column;
      if (together) {
        int64_t low = first_x < 0 ? -first_x : 0,
                high = window.width - first_x < window.kernel_width ? window.width - first_x
                                                                    : window.kernel_width;
        if (low > window.kernel_width) low = window.kernel_width;
        if (high < low) high = low;
        if (low) fill_over(line, args.zero, low * channels);
        copy_over(line + low * channels, source + (first_x + low) * channels,
                  (high - low) * channels);
        if (high < window.kernel_width)
          fill_over(line + high * channels, args.zero, (window.kernel_width - high) * channels);
        continue;
      }
      for (int kernel_x = 0; kernel_x < window.kernel_width; kernel_x++) {
        const int64_t x = first_x + kernel_x * window.dilation_x;
        if (x < 0 || x >= window.width)
          fill_over(line + kernel_x * channels, args.zero, channels);
        else
          copy_over(line + kernel_x * channels, source + x * args.pixel_bytes, channels);
      }
    }
  }
}

// Windows as spans of bytes: the lines of a kernel, of adjacent pixels, of a multiple of the 16
// bytes that a tile multiplies at a time.
struct WindowSpans {
  const oi8_window &window;
  int64_t channels, line;  // `line`: bytes from one line to the next
  int64_t rows;            // most output pixels at a time
  bool padded;             // lines are copied, with padding around

  // Where the pixels of an image lie without gaps. Lines of which few are read are not copied.
  static bool possible(const oi8_conv &instruction) {
    const oi8_window &window = instruction.window;
    const int64_t channels = instruction.reduction / (window.kernel_height * window.kernel_width);
    if (instruction.groups != 1 || window.dilation_x != 1 || window.kernel_width * channels % 16 ||
        int64_t(window.height) * window.width * channels > INT32_MAX)
      return false;
    return WindowSpans(instruction, 0, INT64_MAX).scratch() <= 1 << 20;
  }
  WindowSpans(const oi8_conv &instruction, int64_t bytes, int64_t most)
      : window(instruction.window),
        channels(instruction.reduction / (window.kernel_height * window.kernel_width)) {
    padded = window.top || window.left ||
             (window.out_height - 1) * window.stride_y + reach() >= window.height ||
             across() > window.width;
    line = (padded ? across() : window.width) * channels;
    const int64_t outputs = (bytes / line - reach() - 1) / window.stride_y;
    rows = (outputs < 1 ? 1 : outputs) * window.out_width;
    if (rows > most) rows = most;
  }
  int64_t across() const {
    return int64_t(window.out_width - 1) * window.stride_x + window.kernel_width;
  }  // pixels of a padded line
  int64_t reach() const { return int64_t(window.kernel_height - 1) * window.dilation_y; }
  int64_t offsets_bytes() const { return (rows * 4 + 63) / 64 * 64; }
  // `rows` pixels may begin within a line and end within another.
  int64_t scratch() const {
    return offsets_bytes() +
           (padded ? (((rows - 1) / window.out_width + 1) * window.stride_y + reach() + 1) * line
                   : 0) +
           64;
  }

  // Of output pixels [first, first + count): where each window begins, as offsets from what is
  // returned.
  const uint8_t *locate(const ConvArguments &args, int64_t first, int64_t count,
                        char *scratch) const {
    int32_t *offsets = reinterpret_cast<int32_t *>(scratch);
    const int64_t top = first / window.out_width, bottom = (first + count - 1) / window.out_width;
    int64_t out_y = 0, out_x = first % window.out_width;
    for (int64_t i = 0; i < count; i++) {
      offsets[i] =
          static_cast<int32_t>(out_y * window.stride_y * line + out_x * window.stride_x * channels);
      if (++out_x == window.out_width) out_x = 0, out_y++;
    }
    if (!padded) return args.image + top * window.stride_y * line;
    uint8_t *const lines = reinterpret_cast<uint8_t *>(scratch + offsets_bytes()), *target = lines;
    const int64_t left = window.left * channels < line ? window.left * channels : line,
                  inside =
                      window.width * channels < line - left ? window.width * channels : line - left;
    for (int64_t y = top * window.stride_y - window.top;
         y <= bottom * window.stride_y - window.top + reach(); y++, target += line) {
      if (y < 0 || y >= window.height) {
        std::memset(target, args.zero, line);
        continue;
      }
      std::memset(target, args.zero, left);
      std::memcpy(target + left, args.image + y * window.width * channels, inside);
      std::memset(target + left + inside, args.zero, line - left - inside);
    }
    return lines;
  }
};

}  // namespace OI8_NAMESPACE
