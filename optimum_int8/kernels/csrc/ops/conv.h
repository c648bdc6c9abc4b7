// CONV: one image of uint8 pixels by packed int8 weights; int32 sums exact on every ISA, epilogue in conv_epilogue.h.
//
// Implicit GEMM: rows are output pixels, and the windows of some hundred of them are gathered at a time into this thread's scratch, where
// they meet the panels of a linear; padding becomes the zero point. A tile that takes runs of bytes reads them where they lie
// (windows.h). A 1x1 kernel of stride 1 reads the image as it lies. A depthwise
// kernel goes over pairs of taps, 32 channels at a time. A 3x3 kernel of stride 1 may have a shorter way (winograd.h). Largest K per group
// is numerics.MAX_REDUCTION; every size is free. Threads divide the pixels, or the panels where there are few pixels.
#pragma once
#include <algorithm>
#include <cstring>

namespace OI8_NAMESPACE {

// Bytes of windows (as the tile reads them) that stay in L2 while the panels stream by, and the most blocks of rows that they can be.
constexpr int64_t conv_chunk_bytes = 192 << 10, conv_most_blocks = conv_chunk_bytes / (Tile::rows * 64);

constexpr int64_t conv_cached_panels = 160 << 10;  // bytes of panels that stay in L2 beside the rows

inline int64_t conv_row_bytes(const oi8_instruction &o) { return (int64_t(o.reduction) + 63) / 64 * 64; }

inline const void *conv_prepared(const oi8_instruction &o) { return Tile::prepared_for(o.prepared, int64_t(o.window->out_height) * o.window->out_width); }

inline int64_t conv_prepared_bytes(const oi8_instruction &o) { return (Tile::prepared_bytes((o.reduction + 63) / 64, conv_prepared(o)) + 63) / 64 * 64; }

inline bool conv_in_place(const oi8_window &w) {
  return w.kernel_height == 1 && w.kernel_width == 1 && w.stride_y == 1 && w.stride_x == 1 && !w.top && !w.left && w.out_height == w.height && w.out_width == w.width;
}

inline int64_t conv_blocks(const oi8_instruction &o) {
  const int64_t bytes = conv_prepared_bytes(o) + (Tile::keeps_rows ? conv_row_bytes(o) * Tile::rows : 0);
  return conv_chunk_bytes < bytes ? 1 : conv_chunk_bytes / bytes;
}

// Windows are gathered where the tile reads them, or block by block on their way to there.
inline int64_t conv_gathered_bytes(const oi8_instruction &o) {
  if (conv_in_place(*o.window)) return 64;
  return (Tile::keeps_rows ? conv_blocks(o) : 1) * Tile::rows * conv_row_bytes(o) + 64;
}

// In winograd.h, for tiles that have a use for it: memory per thread; and the way itself, or false where the direct one is shorter.
template <class AnyTile>
int64_t winograd_scratch(const oi8_instruction &o);
template <class AnyTile>
bool takes_winograd(const oi8_instruction &o, int threads);
template <class AnyTile>
bool winograd(const ConvArguments &args, const Context &ctx, int panels);

constexpr int depthwise_rows = 8;

// `AnyTile` is the tile: of a template only the branch that is taken is compiled.
template <class AnyTile>
int64_t panels_scratch(const oi8_instruction &o) {
  int64_t direct = conv_blocks(o) * conv_prepared_bytes(o) + conv_gathered_bytes(o);
  if constexpr (AnyTile::takes_runs)
    if (WindowRuns::fit(o)) direct = std::max(direct, WindowRuns(o, conv_chunk_bytes, conv_most_blocks * Tile::rows).scratch());
  if constexpr (AnyTile::winograd) {
    const int64_t other = winograd_scratch<AnyTile>(o);
    return other > direct ? other : direct;
  }
  return direct;
}

inline int64_t conv_scratch(const oi8_instruction &o) {
  const oi8_window &w = *o.window;
  if (w.depthwise) return (int64_t(o.columns) + 96) + int64_t(w.kernel_height * w.kernel_width + 1) * (depthwise_rows * 8 + (int64_t(o.columns) + 31) / 32 * 64);
  return panels_scratch<Tile>(o);
}

// `count` rows, which are pixels from `row` on, by panels [first, last) of a group. As in linear.h, the epilogue of a block runs
// between the tile steps of the next.
template <int Activation>
void conv_panels(const ConvEnd &end, int group, const typename Tile::Rows *blocks, int64_t row, int64_t count, int first, int last) {
  const oi8_instruction &o = *end.args.o;
  const int steps = (o.reduction + 63) / 64, width = o.columns / o.groups, panels = (width + 31) / 32;
  // Panels that stay in the cache are walked for each block of rows, so that results are written line by line.
  const bool by_blocks = int64_t(last - first) * steps * 2048 <= conv_cached_panels;
  ConvEpilogue<Activation> epilogues[conv_cached_panels / 2048];
  const auto epilogue_of = [&](int p) {
    const int at = group * panels + p, rest = width - p * 32;
    ConvEpilogue<Activation> &it = epilogues[by_blocks ? p - first : p % 2];
    it = ConvEpilogue<Activation>(end, group * width + p * 32, rest < 32 ? rest : 32, at * 32, Tile::offset);
    return &it;
  };
  alignas(64) int32_t sums[2][Tile::rows * 32];
  const ConvEpilogue<Activation> *last_epilogue = nullptr;
  int64_t previous = row;
  int waiting = 0, side = 0;
  const auto panel_of = [&](int p) { return Tile::panel(o.weight, conv_prepared(o), group * panels + p, steps); };
  const auto multiply = [&](int64_t r, const typename Tile::Panel &panel, const ConvEpilogue<Activation> *epilogue, Ahead &ahead) {
    const int rows = static_cast<int>(count - r < Tile::rows ? count - r : Tile::rows), pauses = Tile::pauses(steps), share = (waiting + pauses - 1) / pauses;
    const int32_t *ready = sums[side ^ 1];
    int done = 0;
    Tile::block(blocks[r / Tile::rows], rows, panel, steps, sums[side], 32, ahead, [&](int) {
      const int some = done + share < waiting ? share : waiting - done;
      if (some > 0) last_epilogue->rows(ready + done * 32, previous + done, some);
      done += some;
    });
    previous = row + r, waiting = rows, side ^= 1, last_epilogue = epilogue;
  };
  if (by_blocks) {
    Ahead nothing;
    for (int p = first; p < last; p++) epilogue_of(p);
    for (int64_t r = 0; r < count; r += Tile::rows)
      for (int p = first; p < last; p++) multiply(r, panel_of(p), epilogues + p - first, nothing);
  } else {
    for (int p = first; p < last; p++) {
      const ConvEpilogue<Activation> *const epilogue = epilogue_of(p);
      const typename Tile::Panel panel = panel_of(p);
      Ahead ahead = p + 1 < last ? ahead_of(Tile::bytes_of(panel, steps).following(), (count + Tile::rows - 1) / Tile::rows, steps) : Ahead();
      for (int64_t r = 0; r < count; r += Tile::rows) multiply(r, panel, epilogue, ahead);
    }
  }
  last_epilogue->rows(sums[side ^ 1], previous, waiting);
}

// The same for rows that are runs of bytes.
template <int Activation, class AnyTile>
void conv_runs_region(const ConvEnd &end, const Context &ctx, int64_t first_row, int64_t last_row, int first, int last) {
  const oi8_window &w = *end.args.w;
  const WindowRuns runs(*end.args.o, conv_chunk_bytes, conv_most_blocks * Tile::rows);
  typename AnyTile::Rows blocks[conv_most_blocks];
  for (int64_t r = first_row; r < last_row; r += runs.rows) {
    const int64_t count = last_row - r < runs.rows ? last_row - r : runs.rows;
    const uint8_t *const from = runs.lay(end.args, r, count, ctx.scratch);
    const int32_t *const offsets = reinterpret_cast<const int32_t *>(ctx.scratch);
    for (int64_t i = 0; i < count; i += Tile::rows) blocks[i / Tile::rows] = AnyTile::runs(from, offsets + i, w.kernel_height, runs.line * w.dilation_y, w.kernel_width * runs.channels);
    conv_panels<Activation>(end, 0, blocks, r, count, first, last);
  }
}

// Pixels [begin, end) by panels [first, last) of all groups.
template <int Activation, class AnyTile>
void conv_region(const ConvArguments &args, const Context &ctx, int64_t begin, int64_t end, int first, int last) {
  const oi8_instruction &o = *args.o;
  const oi8_window &w = *args.w;
  const ConvEnd ending(args);
  const bool in_place = conv_in_place(w);
  if constexpr (AnyTile::takes_runs)
    if (!in_place && WindowRuns::fit(o) && args.pixel_bytes == o.reduction / (w.kernel_height * w.kernel_width)) return conv_runs_region<Activation, AnyTile>(ending, ctx, begin, end, first, last);
  const int channels = o.reduction / (w.kernel_height * w.kernel_width), panels = (o.columns / o.groups + 31) / 32;
  const int64_t lda = in_place ? args.pixel_bytes : conv_row_bytes(o), chunk = conv_blocks(o) * Tile::rows, prepared = conv_prepared_bytes(o);
  uint8_t *gathered = reinterpret_cast<uint8_t *>(ctx.scratch) + conv_blocks(o) * prepared;
  typename Tile::Rows blocks[conv_most_blocks];
  for (int64_t r = begin; r < end; r += chunk) {
    const int64_t count = end - r < chunk ? end - r : chunk;
    for (int g = first / panels; g * panels < last; g++) {
      for (int64_t i = 0; i < count; i += Tile::rows) {
        const int rows = static_cast<int>(count - i < Tile::rows ? count - i : Tile::rows);
        const uint8_t *a = in_place ? args.image + (r + i) * lda + g * channels : gathered + (Tile::keeps_rows ? i * lda : 0);
        if (!in_place) gather(args, r + i, rows, g * channels, channels, const_cast<uint8_t *>(a), lda);
        blocks[i / Tile::rows] = Tile::prepare(a, lda, rows, o.reduction, ctx.scratch + i / Tile::rows * prepared, conv_prepared(o));
      }
      const int from = first - g * panels, to = last - g * panels;
      conv_panels<Activation>(ending, g, blocks, r, count, from < 0 ? 0 : from, to > panels ? panels : to);
    }
  }
}

// The weights of two taps side by side, for each pair of taps: [pairs][stride][2].
inline void depthwise_pairs(const oi8_instruction &o, int taps, int stride, int16_t *out) {
  const float *table = static_cast<const float *>(o.weight);
  for (int t = 0; t < taps; t += 2)
    for (int c = 0; c < stride; c++) {
      *out++ = static_cast<int16_t>(table[int64_t(t) * stride + c]);
      *out++ = t + 1 < taps ? static_cast<int16_t>(table[int64_t(t + 1) * stride + c]) : 0;
    }
}

template <int Activation>
void depthwise_region(const ConvArguments &args, const Context &ctx, int64_t begin, int64_t end) {
  const oi8_instruction &o = *args.o;
  const oi8_window &w = *args.w;
  const int taps = w.kernel_height * w.kernel_width, even_taps = (taps + 1) / 2 * 2, stride = (o.columns + 31) / 32 * 32;
  int16_t *pairs = reinterpret_cast<int16_t *>(ctx.scratch);
  depthwise_pairs(o, taps, stride, pairs);
  const uint8_t **from = reinterpret_cast<const uint8_t **>(pairs + int64_t(even_taps) * stride);
  uint8_t *outside = reinterpret_cast<uint8_t *>(from + even_taps * depthwise_rows);
  std::memset(outside, args.zero, o.columns + 32);
  const ConvEnd ending(args);
  for (int64_t r = begin; r < end; r += depthwise_rows) {
    const int count = static_cast<int>(end - r < depthwise_rows ? end - r : depthwise_rows);
    for (int i = 0; i < count; i++) {
      const int64_t y0 = (r + i) / w.out_width * w.stride_y - w.top, x0 = (r + i) % w.out_width * w.stride_x - w.left;
      const uint8_t **line = from + i * even_taps;
      for (int ky = 0; ky < w.kernel_height; ky++) {
        const int64_t y = y0 + ky * w.dilation_y;
        for (int kx = 0; kx < w.kernel_width; kx++) {
          const int64_t x = x0 + kx * w.dilation_x;
          *line++ = y >= 0 && y < w.height && x >= 0 && x < w.width ? args.image + (y * w.width + x) * args.pixel_bytes : outside;
        }
      }
      if (taps % 2) *line = outside;
    }
    for (int c = 0; c < o.columns; c += 32) {
      const ConvEpilogue<Activation> epilogue(ending, c, o.columns - c < 32 ? o.columns - c : 32, c, 0);
      alignas(64) int32_t sums[depthwise_rows][32];
      for (int i = 0; i < count; i++) {
        I low = set_int(0), high = set_int(0);
        for (int t = 0; t < taps; t += 2) {
          const uint8_t *x = from[i * even_taps + t] + c, *y = from[i * even_taps + t + 1] + c;
          const int16_t *weight = pairs + (int64_t(t) / 2 * stride + c) * 2;
          low = add_products(low, x, y, weight);
          high = add_products(high, x + 16, y + 16, weight + 32);
        }
        store(sums[i], low);
        store(sums[i] + 16, high);
      }
      epilogue.rows(sums[0], r, count);
    }
  }
}

// Calls body with the activation as a constant.
template <class Body>
inline void by_activation(int activation, Body &&body) {
  switch (activation) {
    case OI8_RELU: return body(std::integral_constant<int, OI8_RELU>());
    case OI8_GELU: return body(std::integral_constant<int, OI8_GELU>());
    case OI8_GELU_TANH: return body(std::integral_constant<int, OI8_GELU_TANH>());
    case OI8_SILU: return body(std::integral_constant<int, OI8_SILU>());
    case OI8_TANH: return body(std::integral_constant<int, OI8_TANH>());
    case OI8_LEAKY_RELU: return body(std::integral_constant<int, OI8_LEAKY_RELU>());
    case OI8_HARDSWISH: return body(std::integral_constant<int, OI8_HARDSWISH>());
    default: return body(std::integral_constant<int, OI8_NONE>());
  }
}

inline int64_t conv_pixels(const oi8_instruction &o) { return int64_t(o.window->out_height) * o.window->out_width; }
inline int conv_all_panels(const oi8_instruction &o) { return (o.columns / o.groups + 31) / 32 * o.groups; }

// By pixels unless a thread would have one block more of a few.
inline bool conv_divides_pixels(const oi8_instruction &o, int threads) { return (conv_pixels(o) + Tile::rows - 1) / Tile::rows >= 4 * threads || conv_all_panels(o) < threads; }

// This thread's share of so many pixels.
inline Range conv_share(int64_t pixels, const Context &ctx) {
  const Range blocks = ctx.share((pixels + Tile::rows - 1) / Tile::rows);
  return {blocks.begin * Tile::rows, blocks.end * Tile::rows < pixels ? blocks.end * Tile::rows : pixels};
}

inline void conv_some_pixels(const ConvArguments &args, const Context &ctx, Range pixels) {
  by_activation(args.o->activation, [&](auto activation) { conv_region<activation, Tile>(args, ctx, pixels.begin, pixels.end, 0, conv_all_panels(*args.o)); });
}

template <class AnyTile>
void conv_by_panels(const ConvArguments &args, const Context &ctx) {
  const oi8_instruction &o = *args.o;
  const int panels = conv_all_panels(o);
  if constexpr (AnyTile::winograd)
    if (winograd<AnyTile>(args, ctx, panels)) return;
  if (conv_divides_pixels(o, ctx.threads)) return conv_some_pixels(args, ctx, conv_share(conv_pixels(o), ctx));
  const Range mine = ctx.share(panels);
  by_activation(o.activation, [&](auto activation) { conv_region<activation, AnyTile>(args, ctx, 0, conv_pixels(o), static_cast<int>(mine.begin), static_cast<int>(mine.end)); });
}

inline void conv(const oi8_instruction &o, const Context &ctx) {
  const ConvArguments args = conv_arguments(o, ctx);
  if (!o.window->depthwise) return conv_by_panels<Tile>(args, ctx);
  const Range mine = ctx.share(conv_pixels(o));
  by_activation(o.activation, [&](auto activation) { depthwise_region<activation>(args, ctx, mine.begin, mine.end); });
}

}  // namespace OI8_NAMESPACE
