// How a CONV reaches the pixels of its windows: gathered one after another, or, for a tile that takes its rows in runs from anywhere, where
// they lie in the image or in a copy of some of its lines with padding around.
#pragma once
#include <cstring>

namespace OI8_NAMESPACE {

// Both write whole 16 bytes: what they write too much lies where the next bytes of a window go, or in the scratch's slack.
inline void copy_over(uint8_t *to, const uint8_t *from, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) std::memcpy(to + i, from + i, 16);
}
inline void fill_over(uint8_t *to, int value, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) std::memset(to + i, value, 16);
}

// `lines` runs of bytes, `distance` apart, one after another.
template <int Chunks>
inline void copy_lines(uint8_t *to, const uint8_t *from, int lines, int64_t distance, int64_t run) {
  for (int i = 0; i < lines; i++, to += run, from += distance)
    for (int k = 0; k < Chunks; k++) std::memcpy(to + k * 16, from + k * 16, 16);
}

inline void copy_window(uint8_t *to, const uint8_t *from, int lines, int64_t distance, int64_t run) {
  if (run <= 16) return copy_lines<1>(to, from, lines, distance, run);
  if (run <= 32) return copy_lines<2>(to, from, lines, distance, run);
  if (run <= 48) return copy_lines<3>(to, from, lines, distance, run);
  for (int i = 0; i < lines; i++) copy_over(to + i * run, from + i * distance, run);
}

// The windows of output pixels [first, first + count), one after another `lda` bytes apart, of `channels` channels from `column` on.
inline void gather(const ConvArguments &args, int64_t first, int64_t count, int column, int channels, uint8_t *to, int64_t lda) {
  const oi8_window &w = *args.w;
  const bool together = w.dilation_x == 1 && channels == args.pixel_bytes;  // a row of the kernel is one run of bytes
  const int64_t run = int64_t(w.kernel_width) * channels, reach_y = int64_t(w.kernel_height - 1) * w.dilation_y;
  int64_t oy = first / w.out_width, ox = first % w.out_width;
  for (int64_t r = 0; r < count; r++, to += lda) {
    const int64_t y0 = oy * w.stride_y - w.top, x0 = ox * w.stride_x - w.left;
    if (++ox == w.out_width) ox = 0, oy++;
    if (together && y0 >= 0 && y0 + reach_y < w.height && x0 >= 0 && x0 + w.kernel_width <= w.width) {
      copy_window(to, args.image + (y0 * w.width + x0) * channels, w.kernel_height, int64_t(w.dilation_y) * w.width * channels, run);
      continue;
    }
    uint8_t *line = to;
    for (int ky = 0; ky < w.kernel_height; ky++, line += run) {
      const int64_t y = y0 + ky * w.dilation_y;
      if (y < 0 || y >= w.height) {
        fill_over(line, args.zero, run);
        continue;
      }
      const uint8_t *source = args.image + y * w.width * args.pixel_bytes + column;
      if (together) {
        int64_t low = x0 < 0 ? -x0 : 0, high = w.width - x0 < w.kernel_width ? w.width - x0 : w.kernel_width;
        if (low > w.kernel_width) low = w.kernel_width;
        if (high < low) high = low;
        if (low) fill_over(line, args.zero, low * channels);
        copy_over(line + low * channels, source + (x0 + low) * channels, (high - low) * channels);
        if (high < w.kernel_width) fill_over(line + high * channels, args.zero, (w.kernel_width - high) * channels);
        continue;
      }
      for (int kx = 0; kx < w.kernel_width; kx++) {
        const int64_t x = x0 + kx * w.dilation_x;
        if (x < 0 || x >= w.width) fill_over(line + kx * channels, args.zero, channels);
        else copy_over(line + kx * channels, source + x * args.pixel_bytes, channels);
      }
    }
  }
}

// Windows as runs of bytes: the lines of a kernel, of pixels that lie side by side. Runs of 16 bytes are what a tile multiplies at a time.
struct WindowRuns {
  const oi8_window &w;
  int64_t channels, line;  // `line`: bytes from one line to the next
  int64_t rows;            // most output pixels at a time
  bool padded;             // lines are copied, with padding around

  // Where the pixels of an image lie without gaps. Lines of which few are read are not copied.
  static bool fit(const oi8_instruction &o) {
    const oi8_window &w = *o.window;
    const int64_t channels = o.reduction / (w.kernel_height * w.kernel_width);
    if (o.groups != 1 || w.dilation_x != 1 || w.kernel_width * channels % 16 || int64_t(w.height) * w.width * channels > INT32_MAX) return false;
    return WindowRuns(o, 0, INT64_MAX).scratch() <= 1 << 20;
  }
  WindowRuns(const oi8_instruction &o, int64_t bytes, int64_t most) : w(*o.window), channels(o.reduction / (w.kernel_height * w.kernel_width)) {
    padded = w.top || w.left || (w.out_height - 1) * w.stride_y + reach() >= w.height || across() > w.width;
    line = (padded ? across() : w.width) * channels;
    const int64_t outputs = (bytes / line - reach() - 1) / w.stride_y;
    rows = (outputs < 1 ? 1 : outputs) * w.out_width;
    if (rows > most) rows = most;
  }
  int64_t across() const { return int64_t(w.out_width - 1) * w.stride_x + w.kernel_width; }  // pixels of a padded line
  int64_t reach() const { return int64_t(w.kernel_height - 1) * w.dilation_y; }
  int64_t offsets_bytes() const { return (rows * 4 + 63) / 64 * 64; }
  // `rows` pixels may begin within a line and end within another.
  int64_t scratch() const { return offsets_bytes() + (padded ? (((rows - 1) / w.out_width + 1) * w.stride_y + reach() + 1) * line : 0) + 64; }

  // Of output pixels [first, first + count): where each window begins, as offsets from what is returned.
  const uint8_t *lay(const ConvArguments &args, int64_t first, int64_t count, char *scratch) const {
    int32_t *offsets = reinterpret_cast<int32_t *>(scratch);
    const int64_t top = first / w.out_width, bottom = (first + count - 1) / w.out_width;
    int64_t oy = 0, ox = first % w.out_width;
    for (int64_t i = 0; i < count; i++) {
      offsets[i] = static_cast<int32_t>(oy * w.stride_y * line + ox * w.stride_x * channels);
      if (++ox == w.out_width) ox = 0, oy++;
    }
    if (!padded) return args.image + top * w.stride_y * line;
    uint8_t *const lines = reinterpret_cast<uint8_t *>(scratch + offsets_bytes()), *to = lines;
    const int64_t left = w.left * channels < line ? w.left * channels : line, inside = w.width * channels < line - left ? w.width * channels : line - left;
    for (int64_t y = top * w.stride_y - w.top; y <= bottom * w.stride_y - w.top + reach(); y++, to += line) {
      if (y < 0 || y >= w.height) {
        std::memset(to, args.zero, line);
        continue;
      }
      std::memset(to, args.zero, left);
      std::memcpy(to + left, args.image + y * w.width * channels, inside);
      std::memset(to + left + inside, args.zero, line - left - inside);
    }
    return lines;
  }
};

}  // namespace OI8_NAMESPACE
