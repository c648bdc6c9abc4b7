// A 3x3 CONV of stride 1 with a quarter of the multiplications, exact: Winograd's minimal filtering F(4x4, 3x3) in integers.
//
// Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv 1509.09308): 4x4 results Y of 6x6 pixels d and
// 3x3 weights g are A'[(G g G') . (B' d B)]A, where . multiplies elements, summed over the input channels: 36 matrix products in place of 144.
// The rows of G are taken as (6,0,0), (1,1,1), (1,-1,1), (1,2,4), (1,-2,4), (0,0,6), and those of A' so that the sums are 24 Y0, 12 Y1, 6 Y2
// and 6 Y3 in each direction (`four_sums`).
//
// Exact: pixels are taken minus 128, so that B' d B is at most 100 * 128 and G g G' at most 49 * 127, both int16, and a sum of two of their
// products is below 2^31. All else wraps modulo 2^32. What comes out is 9 * 2^n times the result, n at most 6: multiplied by the inverse
// of 9 and shifted it is the result, if that is below 2^25: 128 * 127 * 9 * 229 is. More input channels are several segments, added up.
//
// The weights are transformed from the panels of a linear each time, for some dozens of tiles at once: kept, they were int16 and four times as
// many, eight times the bytes of the panels, and at 13 x 13 pixels to read them from memory takes as long. A block of tiles is
// transformed for all input channels; each 16 output channels are then products whose weights and sums stay in L2.
// Threads divide output channels, tiles or both. Input channels are a multiple of 16; the rest is free.
#pragma once
#include <utility>

namespace OI8_NAMESPACE {

constexpr int winograd_segment = 128;               // most input channels of one; 16 columns of their weights are 144 KiB
constexpr int winograd_tiles = 64;                  // most tiles of a block
constexpr int64_t winograd_pixels_bytes = 4 << 20;  // of the transformed pixels of a block, where that is more than 16 tiles
static_assert(winograd_segment <= 229, "results of a segment stay below 2^25");

struct WinogradShape {
  int channels, across, tiles;  // `across`: tiles side by side
  int segments, segment;        // input channels of each segment but the last
  int block;                    // most tiles of a block

  explicit WinogradShape(const oi8_instruction &o)
      : channels(o.reduction / 9), across((o.window->out_width + 3) / 4), tiles(across * ((o.window->out_height + 3) / 4)), segments((channels + winograd_segment - 1) / winograd_segment), segment((channels / 16 + segments - 1) / segments * 16) {
    const int64_t fitting = winograd_pixels_bytes / (36 * 2 * channels);
    block = static_cast<int>(fitting < 16 ? 16 : fitting > winograd_tiles ? winograd_tiles : fitting);
    if (block > tiles) block = tiles;
  }
  // From one of the 36 to the next, in elements; a line of the cache more than they hold, so that stores do not meet in one set.
  int64_t pixels() const { return int64_t(block) * segment + 32; }
  int64_t weights() const { return int64_t(segment) * 16 + 32; }
  int64_t sums() const { return int64_t(block) * 16 + 16; }
};

// This thread's memory.
struct WinogradScratch {
  int16_t *pixels, *weights;  // [segments][36][block][segment], [36][segment / 2][16][2]
  int32_t *sums, *results;    // [36][block][16], [block][16 pixels][32]
  uint8_t *outside;           // a pixel of the padding

  static int64_t bytes(const WinogradShape &s) { return 72 * (s.segments * s.pixels() + s.weights() + 2 * s.sums()) + int64_t(s.block) * 2048 + (s.channels + 63) / 64 * 64; }
  WinogradScratch(char *p, const WinogradShape &s) {
    pixels = reinterpret_cast<int16_t *>(p);
    weights = pixels + 36 * s.segments * s.pixels();
    sums = reinterpret_cast<int32_t *>(weights + 36 * s.weights());
    results = sums + 36 * s.sums();
    outside = reinterpret_cast<uint8_t *>(results + int64_t(s.block) * 512);
  }
};

inline bool winograd_fits(const oi8_instruction &o) {
  const oi8_window &w = *o.window;
  const bool three = w.kernel_height == 3 && w.kernel_width == 3 && w.stride_y == 1 && w.stride_x == 1 && w.dilation_y == 1 && w.dilation_x == 1;
  return three && o.groups == 1 && o.reduction % (9 * 16) == 0;
}

// B' of six.
inline __attribute__((always_inline)) void six_pixels(const Shorts (&d)[6], Shorts (&v)[6]) {
  const Shorts a = sub(d[4], d[2]), b = sub(d[3], d[1]), c = sub(d[4], shift_left<2>(d[2])), e = sub(d[3], shift_left<2>(d[1])), twice = shift_left<1>(b);
  v[0] = add(shift_left<2>(sub(d[0], d[2])), a);
  v[1] = add(c, e), v[2] = sub(c, e);
  v[3] = add(a, twice), v[4] = sub(a, twice);
  v[5] = sub(sub(d[5], d[3]), shift_left<1>(twice));
}

// G of three.
inline __attribute__((always_inline)) void six_weights(Shorts x, Shorts y, Shorts z, Shorts (&u)[6]) {
  const Shorts a = add(x, z), b = add(x, shift_left<2>(z)), twice = shift_left<1>(y);
  u[0] = mul(x, 6), u[5] = mul(z, 6);
  u[1] = add(a, y), u[2] = sub(a, y);
  u[3] = add(b, twice), u[4] = sub(b, twice);
}

// A' of six, times 24, 12, 6, 6.
inline __attribute__((always_inline)) void four_sums(const I (&m)[6], I (&z)[4]) {
  const I a = add(m[1], m[2]), b = sub(m[1], m[2]), c = add(m[3], m[4]), e = sub(m[3], m[4]);
  z[0] = sub(add(m[0], c), shift_left<2>(a));
  z[1] = sub(e, shift_left<1>(b));
  z[2] = sub(c, a);
  z[3] = add(m[5], sub(shift_left<1>(e), b));
}

// Of one tile, whose 36 pixels lie at `from`, input channels [first, first + count), each of the 36 results `distance` behind the one before.
inline void winograd_pixels(const uint8_t *const *from, int first, int count, int16_t *out, int64_t distance) {
  for (int c = 0; c < count; c += 16, out += 16) {
    Shorts lines[6][6];
    for (int x = 0; x < 6; x++) {
      Shorts d[6], v[6];
      for (int y = 0; y < 6; y++) d[y] = centred(from[y * 6 + x] + first + c);
      six_pixels(d, v);
      for (int y = 0; y < 6; y++) lines[y][x] = v[y];
    }
    for (int y = 0; y < 6; y++) {
      Shorts v[6];
      six_pixels(lines[y], v);
      for (int x = 0; x < 6; x++) store(out + (y * 6 + x) * distance, v[x]);
    }
  }
}

// Of two input channels (the first or second two of fours) by eight output channels, whose nine weights lie at `from`, 4 bytes each.
template <bool second>
inline void winograd_weights_of(const int8_t *const *from, int at, int16_t *out, int64_t distance) {
  Shorts x[3], y[3], z[3];
  for (int i = 0; i < 3; i++) x[i] = twos<second>(from[i] + at), y[i] = twos<second>(from[3 + i] + at), z[i] = twos<second>(from[6 + i] + at);
  const auto line = [&](int index, Shorts a, Shorts b, Shorts c) {
    Shorts u[6];
    six_weights(a, b, c, u);
    for (int i = 0; i < 6; i++) store(out + (index * 6 + i) * distance, u[i]);
  };
  // the lines of G g as they are needed, so that the weights stay in registers
  line(0, mul(x[0], 6), mul(x[1], 6), mul(x[2], 6));
  const Shorts a[3] = {add(x[0], z[0]), add(x[1], z[1]), add(x[2], z[2])};
  line(1, add(a[0], y[0]), add(a[1], y[1]), add(a[2], y[2]));
  line(2, sub(a[0], y[0]), sub(a[1], y[1]), sub(a[2], y[2]));
  const Shorts b[3] = {add(x[0], shift_left<2>(z[0])), add(x[1], shift_left<2>(z[1])), add(x[2], shift_left<2>(z[2]))};
  const Shorts twice[3] = {shift_left<1>(y[0]), shift_left<1>(y[1]), shift_left<1>(y[2])};
  line(3, add(b[0], twice[0]), add(b[1], twice[1]), add(b[2], twice[2]));
  line(4, sub(b[0], twice[0]), sub(b[1], twice[1]), sub(b[2], twice[2]));
  line(5, mul(z[0], 6), mul(z[1], 6), mul(z[2], 6));
}

// Of 16 output channels, half a panel, input channels [first, first + count): 16 at a time, whose weights of a tap lie side by side.
inline void winograd_weights(const int8_t *half, int channels, int first, int count, int16_t *out, int64_t distance) {
  for (int c = 0; c < count; c += 16) {
    const int8_t *from[9];
    for (int tap = 0; tap < 9; tap++) {
      const int64_t k = int64_t(tap) * channels + first + c, ahead = k + 16;
      from[tap] = half + k / 64 * 2048 + k % 64 * 16;
      const int8_t *next = half + ahead / 64 * 2048 + ahead % 64 * 16;  // nine streams in pieces of a kilobyte: more than the processor foresees
      for (int line = 0; line < 4; line++) __builtin_prefetch(next + line * 64);
    }
    for (int at = 0; at < 256; at += 64, out += 64)
      for (int i = 0; i < 2; i++) {
        winograd_weights_of<false>(from, at + i * 32, out + i * 16, distance);
        winograd_weights_of<true>(from, at + i * 32, out + 32 + i * 16, distance);
      }
  }
}

// Folds, because gcc keeps an array in registers only if its indices are constants from the start.
template <int... r>
inline void winograd_product(const int16_t *pixels, int64_t distance, const int16_t *weights, int pairs, int32_t *out, std::integer_sequence<int, r...>) {
  I sums[sizeof...(r)];
  ((sums[r] = set_int(0)), ...);
  const auto two = [](const int16_t *p) {
    int32_t both;
    std::memcpy(&both, p, 4);
    return set_int(both);
  };
#pragma GCC unroll 4  // `pairs` is a multiple of 8
  for (int i = 0; i < pairs; i++, pixels += 2, weights += 32) {
    const I w = load(reinterpret_cast<const int32_t *>(weights));
    ((sums[r] = add_products(sums[r], two(pixels + r * distance), w)), ...);
  }
  (store(out + r * 16, sums[r]), ...);
}

template <int R = winograd_rows>
inline void winograd_product(const int16_t *pixels, int64_t distance, const int16_t *weights, int pairs, int32_t *out, int rows) {
  if (rows == R)
    winograd_product(pixels, distance, weights, pairs, out, std::make_integer_sequence<int, R>());
  else if constexpr (R > 1)
    winograd_product<R - 1>(pixels, distance, weights, pairs, out, rows);
}

// The 16 pixels of a tile by 16 output channels.
template <bool Add>
inline void winograd_results(const int32_t *sums, int64_t distance, int32_t *out) {
  constexpr int32_t inverse_of_9 = 954437177;
  I lines[4][6];
  for (int x = 0; x < 6; x++) {
    I m[6], z[4];
    for (int y = 0; y < 6; y++) m[y] = load(sums + (y * 6 + x) * distance);
    four_sums(m, z);
    for (int y = 0; y < 4; y++) lines[y][x] = z[y];
  }
  const auto put = [&](int y, I line, auto first, auto second) {
    I result = shift_right<first + second>(mul(line, set_int(inverse_of_9)));
    if (Add) result = add(result, load(out + y * 32));
    store(out + y * 32, result);
  };
  using std::integral_constant;
  const auto four = [&](int y, auto shift) {
    I z[4];
    four_sums(lines[y], z);
    put(y * 4, z[0], shift, integral_constant<int, 3>());
    put(y * 4 + 1, z[1], shift, integral_constant<int, 2>());
    put(y * 4 + 2, z[2], shift, integral_constant<int, 1>());
    put(y * 4 + 3, z[3], shift, integral_constant<int, 1>());
  };
  four(0, integral_constant<int, 3>());
  four(1, integral_constant<int, 2>());
  four(2, integral_constant<int, 1>());
  four(3, integral_constant<int, 1>());
}

// Tiles [first, first + count) to `scratch.pixels`.
inline __attribute__((noinline)) void winograd_transform(const ConvArguments &args, const WinogradShape &s, const WinogradScratch &scratch, int64_t first, int count) {
  const oi8_window &w = *args.w;
  for (int t = 0; t < count; t++) {
    const int64_t y0 = (first + t) / s.across * 4 - w.top, x0 = (first + t) % s.across * 4 - w.left;
    const uint8_t *from[36];
    for (int i = 0; i < 36; i++) {
      const int64_t y = y0 + i / 6, x = x0 + i % 6;
      from[i] = y >= 0 && y < w.height && x >= 0 && x < w.width ? args.image + (y * w.width + x) * args.pixel_bytes : scratch.outside;
    }
    for (int g = 0; g < s.segments; g++) {
      const int channel = g * s.segment, rest = s.channels - channel;
      winograd_pixels(from, channel, rest < s.segment ? rest : s.segment, scratch.pixels + 36 * g * s.pixels() + t * s.segment, s.pixels());
    }
  }
}

// `count` transformed tiles by half a panel, to every second half line of `scratch.results` from `column` on.
inline __attribute__((noinline)) void winograd_multiply(const int8_t *half, const WinogradShape &s, const WinogradScratch &scratch, int count, int column) {
  const int parts = (count + winograd_rows - 1) / winograd_rows;
  for (int g = 0; g < s.segments; g++) {
    const int channel = g * s.segment, rest = s.channels - channel, channels = rest < s.segment ? rest : s.segment;
    winograd_weights(half, s.channels, channel, channels, scratch.weights, s.weights());
    for (int i = 0; i < 36; i++)
      for (int p = 0; p < parts; p++) {
        const int from = count * p / parts, rows = count * (p + 1) / parts - from;
        const int16_t *pixels = scratch.pixels + (36 * g + i) * s.pixels() + from * s.segment;
        winograd_product(pixels, s.segment, scratch.weights + i * s.weights(), channels / 2, scratch.sums + i * s.sums() + from * 16, rows);
      }
    for (int t = 0; t < count; t++) {
      int32_t *out = scratch.results + t * 512 + column;
      if (g == 0) winograd_results<false>(scratch.sums + t * 16, s.sums(), out);
      else winograd_results<true>(scratch.sums + t * 16, s.sums(), out);
    }
  }
}

// Tiles [begin, end) by panels [first, last).
template <int Activation>
void winograd_region(const ConvArguments &args, const Context &ctx, int64_t begin, int64_t end, int first, int last) {
  const oi8_instruction &o = *args.o;
  const oi8_window &w = *args.w;
  const WinogradShape s(o);
  const WinogradScratch scratch(ctx.scratch, s);
  const int steps = (o.reduction + 63) / 64;
  std::memset(scratch.outside, args.zero, s.channels);
  const ConvEnd ending(args);
  const int64_t blocks = (end - begin + s.block - 1) / s.block;
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t from = begin + (end - begin) * b / blocks;
    const int count = static_cast<int>(begin + (end - begin) * (b + 1) / blocks - from);
    winograd_transform(args, s, scratch, from, count);
    for (int p = first; p < last; p++) {
      const int8_t *panel = static_cast<const int8_t *>(o.weight) + int64_t(p) * steps * 2048;
      const int rest = o.columns - p * 32, width = rest < 32 ? rest : 32;
      for (int h = 0; h * 16 < width; h++) winograd_multiply(panel + h * 1024, s, scratch, count, h * 16);
      const ConvEpilogue<Activation> epilogue(ending, p * 32, width, p * 32, 128);
      for (int t = 0; t < count; t++) {
        const int64_t y0 = (from + t) / s.across * 4, x0 = (from + t) % s.across * 4, lines = w.out_height - y0, columns = w.out_width - x0;
        for (int y = 0; y < 4 && y < lines; y++) epilogue.rows(scratch.results + t * 512 + y * 128, (y0 + y) * w.out_width + x0, columns < 4 ? static_cast<int>(columns) : 4);
      }
    }
  }
}

// How threads divide the work: `beside` shares of the panels, each of them as many shares of the tiles as there are threads left; none where
// the direct way costs less.
struct WinogradDivision {
  int beside = 0, below = 0;

  WinogradDivision() = default;
  WinogradDivision(const WinogradCosts &cost, const oi8_instruction &o, const WinogradShape &s, int panels, int threads) {
    double least = double(o.window->out_height) * o.window->out_width * panels * cost.direct / threads;
    for (int b = 1; b <= threads && b <= panels; b++) {
      const int64_t share = (panels + b - 1) / b, tiles = (s.tiles + threads / b - 1) / (threads / b), blocks = (tiles + s.block - 1) / s.block;
      const double all = share * (tiles * (cost.product + cost.results * s.segments / s.channels) + blocks * cost.weights) + tiles * cost.pixels;
      if (all < least) beside = b, below = threads / b, least = all;
    }
  }
};

template <class AnyTile>
int64_t winograd_scratch(const oi8_instruction &o) {
  return winograd_fits(o) ? WinogradScratch::bytes(WinogradShape(o)) : 0;
}

template <class AnyTile>
WinogradDivision winograd_division(const oi8_instruction &o, int threads) {
  if (!winograd_fits(o)) return {};
  return WinogradDivision(AnyTile::winograd_costs, o, WinogradShape(o), (o.columns + 31) / 32, threads);
}

template <class AnyTile>
bool takes_winograd(const oi8_instruction &o, int threads) {
  return winograd_division<AnyTile>(o, threads).beside > 0;
}

template <class AnyTile>
bool winograd(const ConvArguments &args, const Context &ctx, int panels) {
  const oi8_instruction &o = *args.o;
  const WinogradDivision division = winograd_division<AnyTile>(o, ctx.threads);
  if (!division.beside) return false;
  if (ctx.thread >= division.beside * division.below) return true;
  const int64_t all = WinogradShape(o).tiles;
  const Range mine = share_of(panels, ctx.thread % division.beside, division.beside), tiles = share_of(all, ctx.thread / division.beside, division.below);
  by_activation(o.activation, [&](auto activation) { winograd_region<activation>(args, ctx, tiles.begin, tiles.end, static_cast<int>(mine.begin), static_cast<int>(mine.end)); });
  return true;
}

}  // namespace OI8_NAMESPACE
