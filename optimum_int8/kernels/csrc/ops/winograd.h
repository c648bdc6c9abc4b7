// A 3x3 CONV of stride 1 with a quarter of the multiplications, exact: Winograd's minimal filtering
// F(4x4, 3x3) in integers.
//
// Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv
// 1509.09308): 4x4 results Y of 6x6 pixels d and 3x3 weights g are A'[(G g G') . (B' d B)]A, where
// . multiplies elements, summed over the input channels: 36 matrix products in place of 144. The
// rows of G are taken as (6,0,0), (1,1,1), (1,-1,1), (1,2,4), (1,-2,4), (0,0,6), and those of A' so
// that the sums are 24 Y0, 12 Y1, 6 Y2 and 6 Y3 in each direction (`four_sums`).
//
// Exact: pixels are taken minus 128, so that B' d B is at most 100 * 128 and G g G' at most 49 *
// 127, both int16, and a sum of two of their products is below 2^31. All else wraps modulo 2^32.
// What comes out is 9 * 2^n times the result, n at most 6: multiplied by the inverse of 9 and
// shifted it is the result, if that is below 2^25: 128 * 127 * 9 * 229 is. More input channels are
// several segments, added up.
//
// The weights are transformed from the panels of a linear each time, for some dozens of tiles at
// once: kept, they were int16 and four times as many, eight times the bytes of the panels, and at
// 13 x 13 pixels to read them from memory takes as long. A block of tiles is transformed for all
// input channels; each 16 output channels are then products whose weights and sums stay in L2.
// Threads divide output channels, tiles or both. Input channels are a multiple of 16; the rest is
// free.
#pragma once
#include <cstring>
#include <utility>

#include "../layout.h"
#include "conv_epilogue.h"

namespace OI8_NAMESPACE {

// What conv.h calls, for a tile that has a use for it: the memory of a thread; whether this path is
// the shorter one; and the convolution itself, or false where it is not.
template <class AnyTile>
int64_t winograd_scratch(const oi8_conv &instruction);
template <class AnyTile>
bool takes_winograd(const oi8_conv &instruction, int threads);
template <class AnyTile>
bool winograd(const ConvArguments &args, const Context &context, int panels);

#if defined(__AVX2__)  // it needs the int16 lanes of narrow_avx.h

constexpr int winograd_segment =
    128;  // most input channels of one; 16 columns of their weights are 144 KiB
constexpr int winograd_tiles = 64;  // most tiles of a block
constexpr int64_t winograd_pixels_bytes =
    4 << 20;  // of the transformed pixels of a block, where that is more than 16 tiles
static_assert(winograd_segment <= 229, "results of a segment stay tile_shares 2^25");

struct WinogradShape {
  int channels, across, tiles;  // `across`: tiles side by side
  int segments, segment;        // input channels of each segment but the last
  int block;                    // most tiles of a block

  explicit WinogradShape(const oi8_conv &instruction)
      : channels(instruction.reduction / 9),
        across((instruction.window.out_width + 3) / 4),
        tiles(across * ((instruction.window.out_height + 3) / 4)),
        segments((channels + winograd_segment - 1) / winograd_segment),
        segment((channels / 16 + segments - 1) / segments * 16) {
    const int64_t fitting = winograd_pixels_bytes / (36 * 2 * channels);
    block = static_cast<int>(fitting < 16               ? 16
                             : fitting > winograd_tiles ? winograd_tiles
                                                        : fitting);
    if (block > tiles) block = tiles;
  }
  // From one of the 36 to the next, in elements; a line of the cache more than they hold, so that
  // stores do not meet in one set.
  int64_t pixels() const { return int64_t(block) * segment + 32; }
  int64_t weights() const { return int64_t(segment) * 16 + 32; }
  int64_t sums() const { return int64_t(block) * 16 + 16; }
};

// This thread's memory.
struct WinogradScratch {
  int16_t *pixels, *weights;  // [segments][36][block][segment], [36][segment / 2][16][2]
  int32_t *sums, *results;    // [36][block][16], [block][16 pixels][32]
  uint8_t *outside;           // a pixel of the padding

  static int64_t bytes(const WinogradShape &shape) {
    return 72 * (shape.segments * shape.pixels() + shape.weights() + 2 * shape.sums()) +
           int64_t(shape.block) * 2048 + (shape.channels + 63) / 64 * 64;
  }
  WinogradScratch(char *memory, const WinogradShape &shape) {
    pixels = reinterpret_cast<int16_t *>(memory);
    weights = pixels + 36 * shape.segments * shape.pixels();
    sums = reinterpret_cast<int32_t *>(weights + 36 * shape.weights());
    results = sums + 36 * shape.sums();
    outside = reinterpret_cast<uint8_t *>(results + int64_t(shape.block) * 512);
  }
};

inline bool winograd_applies(const oi8_conv &instruction) {
  const oi8_window &window = instruction.window;
  const bool three = window.kernel_height == 3 && window.kernel_width == 3 &&
                     window.stride_y == 1 && window.stride_x == 1 && window.dilation_y == 1 &&
                     window.dilation_x == 1;
  return three && instruction.groups == 1 && instruction.reduction % (9 * 16) == 0;
}

// B' of six.
inline __attribute__((always_inline)) void six_pixels(const Shorts (&pixels)[6],
                                                      Shorts (&results)[6]) {
  const Shorts even = sub(pixels[4], pixels[2]), odd = sub(pixels[3], pixels[1]),
               even_far = sub(pixels[4], shift_left<2>(pixels[2])),
               odd_far = sub(pixels[3], shift_left<2>(pixels[1])), twice = shift_left<1>(odd);
  results[0] = add(shift_left<2>(sub(pixels[0], pixels[2])), even);
  results[1] = add(even_far, odd_far), results[2] = sub(even_far, odd_far);
  results[3] = add(even, twice), results[4] = sub(even, twice);
  results[5] = sub(sub(pixels[5], pixels[3]), shift_left<1>(twice));
}

// G of three.
inline __attribute__((always_inline)) void six_weights(Shorts x, Shorts y, Shorts z,
                                                       Shorts (&results)[6]) {
  const Shorts outer = add(x, z), outer_far = add(x, shift_left<2>(z)), twice = shift_left<1>(y);
  results[0] = mul(x, 6), results[5] = mul(z, 6);
  results[1] = add(outer, y), results[2] = sub(outer, y);
  results[3] = add(outer_far, twice), results[4] = sub(outer_far, twice);
}

// A' of six, times 24, 12, 6, 6.
inline __attribute__((always_inline)) void four_sums(const Ints (&products)[6],
                                                     Ints (&results)[4]) {
  const Ints near_sum = add(products[1], products[2]),
             near_difference = sub(products[1], products[2]),
             far_sum = add(products[3], products[4]),
             far_difference = sub(products[3], products[4]);
  results[0] = sub(add(products[0], far_sum), shift_left<2>(near_sum));
  results[1] = sub(far_difference, shift_left<1>(near_difference));
  results[2] = sub(far_sum, near_sum);
  results[3] = add(products[5], sub(shift_left<1>(far_difference), near_difference));
}

// Of one tile, whose 36 pixels lie at `from`, input channels [first, first + count), each of the 36
// results `distance` behind the one before.
inline void winograd_pixels(const uint8_t *const *from, int first, int count, int16_t *out,
                            int64_t distance) {
  for (int channel = 0; channel < count; channel += 16, out += 16) {
    Shorts lines[6][6];
    for (int x = 0; x < 6; x++) {
      Shorts pixels[6], results[6];
      for (int y = 0; y < 6; y++) pixels[y] = centred(from[y * 6 + x] + first + channel);
      six_pixels(pixels, results);
      for (int y = 0; y < 6; y++) lines[y][x] = results[y];
    }
    for (int y = 0; y < 6; y++) {
      Shorts results[6];
      six_pixels(lines[y], results);
      for (int x = 0; x < 6; x++) store(out + (y * 6 + x) * distance, results[x]);
    }
  }
}

// Of two input channels (the first or second pair of a group of four) by eight output channels,
// whose nine weights lie at `from`, 4 bytes each.
template <bool second>
inline void winograd_weight_pair(const int8_t *const *from, int offset, int16_t *out,
                                 int64_t distance) {
  Shorts x[3], y[3], z[3];
  for (int i = 0; i < 3; i++)
    x[i] = input_pair<second>(from[i] + offset), y[i] = input_pair<second>(from[3 + i] + offset),
    z[i] = input_pair<second>(from[6 + i] + offset);
  const auto line = [&](int index, Shorts upper, Shorts middle, Shorts lower) {
    Shorts results[6];
    six_weights(upper, middle, lower, results);
    for (int i = 0; i < 6; i++) store(out + (index * 6 + i) * distance, results[i]);
  };
  // the lines of G g as they are needed, so that the weights stay in registers
  line(0, mul(x[0], 6), mul(x[1], 6), mul(x[2], 6));
  const Shorts outer[3] = {add(x[0], z[0]), add(x[1], z[1]), add(x[2], z[2])};
  line(1, add(outer[0], y[0]), add(outer[1], y[1]), add(outer[2], y[2]));
  line(2, sub(outer[0], y[0]), sub(outer[1], y[1]), sub(outer[2], y[2]));
  const Shorts outer_far[3] = {add(x[0], shift_left<2>(z[0])), add(x[1], shift_left<2>(z[1])),
                               add(x[2], shift_left<2>(z[2]))};
  const Shorts twice[3] = {shift_left<1>(y[0]), shift_left<1>(y[1]), shift_left<1>(y[2])};
  line(3, add(outer_far[0], twice[0]), add(outer_far[1], twice[1]), add(outer_far[2], twice[2]));
  line(4, sub(outer_far[0], twice[0]), sub(outer_far[1], twice[1]), sub(outer_far[2], twice[2]));
  line(5, mul(z[0], 6), mul(z[1], 6), mul(z[2], 6));
}

// Of 16 output channels, half a panel, input channels [first, first + count): 16 at a time, whose
// weights of a tap lie side by side.
inline void winograd_weights(const int8_t *half, int channels, int first, int count, int16_t *out,
                             int64_t distance) {
  for (int channel = 0; channel < count; channel += 16) {
    const int8_t *from[9];
    for (int tap = 0; tap < 9; tap++) {
      const int64_t depth = int64_t(tap) * channels + first + channel, next_depth = depth + 16;
      from[tap] = input_at(half, depth);
      const int8_t *next = input_at(half, next_depth);  // nine streams in pieces of a kilobyte:
                                                        // more than the processor foresees
      for (int line = 0; line < 4; line++) __builtin_prefetch(next + line * 64);
    }
    for (int offset = 0; offset < 256; offset += 64, out += 64)
      for (int i = 0; i < 2; i++) {
        winograd_weight_pair<false>(from, offset + i * 32, out + i * 16, distance);
        winograd_weight_pair<true>(from, offset + i * 32, out + 32 + i * 16, distance);
      }
  }
}

// Folds, because gcc keeps an array in registers only if its indices are constants from the start.
template <int... row>
inline void winograd_product(const int16_t *pixels, int64_t distance, const int16_t *weights,
                             int pairs, int32_t *out, std::integer_sequence<int, row...>) {
  Ints sums[sizeof...(row)];
  ((sums[row] = set_int(0)), ...);
  const auto two = [](const int16_t *source) {
    int32_t both;
    std::memcpy(&both, source, 4);
    return set_int(both);
  };
#pragma GCC unroll 4  // `pairs` is a multiple of 8
  for (int pair = 0; pair < pairs; pair++, pixels += 2, weights += 32) {
    const Ints two_weights = load(reinterpret_cast<const int32_t *>(weights));
    ((sums[row] = add_products(sums[row], two(pixels + row * distance), two_weights)), ...);
  }
  (store(out + row * 16, sums[row]), ...);
}

template <int Rows = winograd_rows>
inline void winograd_product(const int16_t *pixels, int64_t distance, const int16_t *weights,
                             int pairs, int32_t *out, int rows) {
  if (rows == Rows)
    winograd_product(pixels, distance, weights, pairs, out,
                     std::make_integer_sequence<int, Rows>());
  else if constexpr (Rows > 1)
    winograd_product<Rows - 1>(pixels, distance, weights, pairs, out, rows);
}

// The 16 pixels of a tile by 16 output channels.
template <bool Add>
inline void winograd_results(const int32_t *sums, int64_t distance, int32_t *out) {
  constexpr int32_t inverse_of_9 = 954437177;
  Ints lines[4][6];
  for (int x = 0; x < 6; x++) {
    Ints products[6], results[4];
    for (int y = 0; y < 6; y++) products[y] = load(sums + (y * 6 + x) * distance);
    four_sums(products, results);
    for (int y = 0; y < 4; y++) lines[y][x] = results[y];
  }
  const auto put = [&](int y, Ints line, auto first, auto second) {
    Ints result = shift_right<first + second>(mul(line, set_int(inverse_of_9)));
    if (Add) result = add(result, load(out + y * 32));
    store(out + y * 32, result);
  };
  using std::integral_constant;
  const auto four = [&](int y, auto shift) {
    Ints results[4];
    four_sums(lines[y], results);
    put(y * 4, results[0], shift, integral_constant<int, 3>());
    put(y * 4 + 1, results[1], shift, integral_constant<int, 2>());
    put(y * 4 + 2, results[2], shift, integral_constant<int, 1>());
    put(y * 4 + 3, results[3], shift, integral_constant<int, 1>());
  };
  four(0, integral_constant<int, 3>());
  four(1, integral_constant<int, 2>());
  four(2, integral_constant<int, 1>());
  four(3, integral_constant<int, 1>());
}

// Tiles [first, first + count) to `scratch.pixels`.
inline __attribute__((noinline)) void winograd_transform(const ConvArguments &args,
                                                         const WinogradShape &shape,
                                                         const WinogradScratch &scratch,
                                                         int64_t first, int count) {
  const oi8_window &window = *args.window;
  for (int tile = 0; tile < count; tile++) {
    const int64_t first_y = (first + tile) / shape.across * 4 - window.top,
                  first_x = (first + tile) % shape.across * 4 - window.left;
    const uint8_t *from[36];
    for (int i = 0; i < 36; i++) {
      const int64_t y = first_y + i / 6, x = first_x + i % 6;
      from[i] = y >= 0 && y < window.height && x >= 0 && x < window.width
                    ? args.image + (y * window.width + x) * args.pixel_bytes
                    : scratch.outside;
    }
    for (int segment = 0; segment < shape.segments; segment++) {
      const int channel = segment * shape.segment, rest = shape.channels - channel;
      winograd_pixels(from, channel, rest < shape.segment ? rest : shape.segment,
                      scratch.pixels + 36 * segment * shape.pixels() + tile * shape.segment,
                      shape.pixels());
    }
  }
}

// `count` transformed tiles by half a panel, to every second half line of `scratch.results` from
// `column` on.
inline __attribute__((noinline)) void winograd_multiply(const int8_t *half,
                                                        const WinogradShape &shape,
                                                        const WinogradScratch &scratch, int count,
                                                        int column) {
  const int parts = (count + winograd_rows - 1) / winograd_rows;
  for (int segment = 0; segment < shape.segments; segment++) {
    const int channel = segment * shape.segment, rest = shape.channels - channel,
              channels = rest < shape.segment ? rest : shape.segment;
    winograd_weights(half, shape.channels, channel, channels, scratch.weights, shape.weights());
    for (int i = 0; i < 36; i++)
      for (int part = 0; part < parts; part++) {
        const int from = count * part / parts, rows = count * (part + 1) / parts - from;
        const int16_t *pixels =
            scratch.pixels + (36 * segment + i) * shape.pixels() + from * shape.segment;
        winograd_product(pixels, shape.segment, scratch.weights + i * shape.weights(), channels / 2,
                         scratch.sums + i * shape.sums() + from * 16, rows);
      }
    for (int tile = 0; tile < count; tile++) {
      int32_t *out = scratch.results + tile * 512 + column;
      if (segment == 0)
        winograd_results<false>(scratch.sums + tile * 16, shape.sums(), out);
      else
        winograd_results<true>(scratch.sums + tile * 16, shape.sums(), out);
    }
  }
}

// Tiles [begin, end) by panels [first, last).
template <int Activation>
void winograd_region(const ConvArguments &args, const Context &context, int64_t begin, int64_t end,
                     int first, int last) {
  const oi8_conv &instruction = *args.instruction;
  const oi8_window &window = *args.window;
  const WinogradShape shape(instruction);
  const WinogradScratch scratch(context.scratch, shape);
  const int steps = steps_of(instruction.reduction);
  std::memset(scratch.outside, args.zero, shape.channels);
  const ConvEnd ending(args);
  const int64_t blocks = (end - begin + shape.block - 1) / shape.block;
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t from = begin + (end - begin) * block / blocks;
    const int count = static_cast<int>(begin + (end - begin) * (block + 1) / blocks - from);
    winograd_transform(args, shape, scratch, from, count);
    for (int panel_index = first; panel_index < last; panel_index++) {
      const int8_t *panel = static_cast<const int8_t *>(instruction.weight) +
                            int64_t(panel_index) * steps * step_bytes;
      const int rest = instruction.columns - panel_index * panel_columns,
                width = rest < panel_columns ? rest : panel_columns;
      for (int half = 0; half * 16 < width; half++)
        winograd_multiply(panel + half * half_bytes, shape, scratch, count, half * half_columns);
      const ConvEpilogue<Activation> epilogue(ending, panel_index * panel_columns, width,
                                              panel_index * panel_columns, 128);
      for (int tile = 0; tile < count; tile++) {
        const int64_t first_y = (from + tile) / shape.across * 4,
                      first_x = (from + tile) % shape.across * 4,
                      lines = window.out_height - first_y, columns = window.out_width - first_x;
        for (int y = 0; y < 4 && y < lines; y++)
          epilogue.rows(scratch.results + tile * 512 + y * 128,
                        (first_y + y) * window.out_width + first_x,
                        columns < 4 ? static_cast<int>(columns) : 4);
      }
    }
  }
}

// How threads divide the work: shares of the panels, each of them divided into shares of the tiles
// for the threads left; none where the direct way costs less.
struct WinogradDivision {
  int panel_shares = 0, tile_shares = 0;

  WinogradDivision() = default;
  WinogradDivision(const WinogradCosts &cost, const oi8_conv &instruction,
                   const WinogradShape &shape, int panels, int threads) {
    double least = double(instruction.window.out_height) * instruction.window.out_width * panels *
                   cost.direct / threads;
    for (int shares = 1; shares <= threads && shares <= panels; shares++) {
      const int64_t share = (panels + shares - 1) / shares,
                    tiles = (shape.tiles + threads / shares - 1) / (threads / shares),
                    blocks = (tiles + shape.block - 1) / shape.block;
      const double all =
          share * (tiles * (cost.product + cost.results * shape.segments / shape.channels) +
                   blocks * cost.weights) +
          tiles * cost.pixels;
      if (all < least) panel_shares = shares, tile_shares = threads / shares, least = all;
    }
  }
};

template <class AnyTile>
int64_t winograd_scratch(const oi8_conv &instruction) {
  return winograd_applies(instruction) ? WinogradScratch::bytes(WinogradShape(instruction)) : 0;
}

template <class AnyTile>
WinogradDivision winograd_division(const oi8_conv &instruction, int threads) {
  if (!winograd_applies(instruction)) return {};
  return WinogradDivision(AnyTile::winograd_costs, instruction, WinogradShape(instruction),
                          panels_of(instruction.columns), threads);
}

template <class AnyTile>
bool takes_winograd(const oi8_conv &instruction, int threads) {
  return winograd_division<AnyTile>(instruction, threads).panel_shares > 0;
}

template <class AnyTile>
bool winograd(const ConvArguments &args, const Context &context, int panels) {
  const oi8_conv &instruction = *args.instruction;
  const WinogradDivision division = winograd_division<AnyTile>(instruction, context.threads);
  if (!division.panel_shares) return false;
  if (context.thread >= division.panel_shares * division.tile_shares) return true;
  const int64_t all = WinogradShape(instruction).tiles;
  const Range mine =
                  share_of(panels, context.thread % division.panel_shares, division.panel_shares),
              tiles = share_of(all, context.thread / division.panel_shares, division.tile_shares);
  by_activation(instruction.activation, [&](auto activation) {
    winograd_region<activation>(args, context, tiles.begin, tiles.end, static_cast<int>(mine.begin),
                                static_cast<int>(mine.end));
  });
  return true;
}

#endif

}  // namespace OI8_NAMESPACE
