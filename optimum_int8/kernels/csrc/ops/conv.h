// CONV: one image of uint8 pixels by packed int8 weights; epilogue in conv_epilogue.h.
//
// Accumulator: int32, exact up to a reduction of numerics.MAX_REDUCTION per group; every size,
// stride, dilation, padding and number of groups is free. An implicit matrix product: rows are
// output pixels, and the windows of some hundred of them at a time are gathered into the thread's
// scratch, where the panels of a linear (layout.h) multiply them; padding becomes the zero point. A
// tile that takes spans of bytes reads them in place (windows.h), as a 1x1 kernel of stride 1 reads
// the image. A depthwise kernel goes over pairs of taps, 32 channels at a time. A 3x3 kernel of
// stride 1 may take the shorter path of winograd.h. Each thread owns a share of the output pixels,
// or of the panels where there are few pixels.
#pragma once
#include <algorithm>
#include <cstring>

#include "../layout.h"
#include "conv_epilogue.h"
#include "windows.h"
#include "winograd.h"

namespace OI8_NAMESPACE {

// Bytes of windows (as the tile reads them) that stay in L2 while the panels stream by, and the
// most blocks of rows that they can be.
constexpr int64_t conv_chunk_bytes = 192 << 10,
                  conv_most_blocks = conv_chunk_bytes / (Tile::rows * 64);

constexpr int64_t conv_cached_panels = 160 << 10;  // bytes of panels that stay in L2 with the rows

inline int64_t conv_row_bytes(const oi8_conv &instruction) {
  return up_to_step(int64_t(instruction.reduction));
}

inline const void *conv_prepared(const oi8_conv &instruction) {
  return Tile::prepared_for(instruction.prepared,
                            int64_t(instruction.window.out_height) * instruction.window.out_width);
}

inline int64_t conv_prepared_bytes(const oi8_conv &instruction) {
  return (Tile::prepared_bytes(steps_of(instruction.reduction), conv_prepared(instruction)) + 63) /
         64 * 64;
}

inline bool conv_in_place(const oi8_window &window) {
  return window.kernel_height == 1 && window.kernel_width == 1 && window.stride_y == 1 &&
         window.stride_x == 1 && !window.top && !window.left &&
         window.out_height == window.height && window.out_width == window.width;
}

inline int64_t conv_blocks(const oi8_conv &instruction) {
  const int64_t bytes = conv_prepared_bytes(instruction) +
                        (Tile::keeps_rows ? conv_row_bytes(instruction) * Tile::rows : 0);
  return conv_chunk_bytes < bytes ? 1 : conv_chunk_bytes / bytes;
}

// Windows are gathered where the tile reads them, or block by block on their way to there.
inline int64_t conv_gathered_bytes(const oi8_conv &instruction) {
  if (conv_in_place(instruction.window)) return 64;
  return (Tile::keeps_rows ? conv_blocks(instruction) : 1) * Tile::rows *
             conv_row_bytes(instruction) +
         64;
}

constexpr int depthwise_rows = 8;

// `AnyTile` is the tile: of a template only the branch that is taken is compiled.
template <class AnyTile>
int64_t panels_scratch(const oi8_conv &instruction) {
  int64_t direct = conv_blocks(instruction) * conv_prepared_bytes(instruction) +
                   conv_gathered_bytes(instruction);
  if constexpr (AnyTile::takes_spans)
    if (WindowSpans::possible(instruction))
      direct = std::max(
          direct,
          WindowSpans(instruction, conv_chunk_bytes, conv_most_blocks * Tile::rows).scratch());
  if constexpr (AnyTile::winograd) {
    const int64_t other = winograd_scratch<AnyTile>(instruction);
    return other > direct ? other : direct;
  }
  return direct;
}

inline int64_t conv_scratch(const oi8_conv &instruction, const oi8_call &) {
  const oi8_window &window = instruction.window;
  if (instruction.depthwise)
    return (int64_t(instruction.columns) + 96) +
           int64_t(window.kernel_height * window.kernel_width + 1) *
               (depthwise_rows * 8 + panels_of(int64_t(instruction.columns)) * 2 * panel_columns);
  return panels_scratch<Tile>(instruction);
}

// `count` rows, which are pixels from `row` on, by panels [first, last) of a group. As in linear.h,
// the epilogue of a block runs between the tile steps of the next.
template <int Activation>
void conv_panels(const ConvEnd &end, int group, const typename Tile::Rows *blocks, int64_t row,
                 int64_t count, int first, int last) {
  const oi8_conv &instruction = *end.args.instruction;
  const int steps = steps_of(instruction.reduction),
            width = instruction.columns / instruction.groups, panels = panels_of(width);
  // Panels that stay in the cache are walked for each block of rows, so that results are written
  // line by line.
  const bool by_blocks = int64_t(last - first) * steps * step_bytes <= conv_cached_panels;
  ConvEpilogue<Activation> epilogues[conv_cached_panels / step_bytes];
  const auto epilogue_of = [&](int panel_index) {
    const int padded_index = group * panels + panel_index,
              rest = width - panel_index * panel_columns;
    ConvEpilogue<Activation> &epilogue =
        epilogues[by_blocks ? panel_index - first : panel_index % 2];
    epilogue = ConvEpilogue<Activation>(end, group * width + panel_index * panel_columns,
                                        rest < panel_columns ? rest : panel_columns,
                                        padded_index * panel_columns, Tile::offset);
    return &epilogue;
  };
  alignas(64) int32_t sums[2][Tile::rows * panel_columns];
  const ConvEpilogue<Activation> *last_epilogue = nullptr;
  int64_t previous = row;
  int waiting = 0, side = 0;
  const auto panel_of = [&](int panel_index) {
    return Tile::panel(instruction.weight, conv_prepared(instruction), group * panels + panel_index,
                       steps);
  };
  const auto multiply = [&](int64_t first_row, const typename Tile::Panel &panel,
                            const ConvEpilogue<Activation> *epilogue, Prefetch &prefetch) {
    const int rows =
                  static_cast<int>(count - first_row < Tile::rows ? count - first_row : Tile::rows),
              pauses = Tile::pauses(steps), share = (waiting + pauses - 1) / pauses;
    const int32_t *ready = sums[side ^ 1];
    int done = 0;
    Tile::block(blocks[first_row / Tile::rows], rows, panel, steps, sums[side], 32, prefetch,
                [&](int) {
                  const int some = done + share < waiting ? share : waiting - done;
                  if (some > 0)
                    last_epilogue->rows(ready + done * panel_columns, previous + done, some);
                  done += some;
                });
    previous = row + first_row, waiting = rows, side ^= 1, last_epilogue = epilogue;
  };
  if (by_blocks) {
    Prefetch nothing;
    for (int panel_index = first; panel_index < last; panel_index++) epilogue_of(panel_index);
    for (int64_t first_row = 0; first_row < count; first_row += Tile::rows)
      for (int panel_index = first; panel_index < last; panel_index++)
        multiply(first_row, panel_of(panel_index), epilogues + panel_index - first, nothing);
  } else {
    for (int panel_index = first; panel_index < last; panel_index++) {
      const ConvEpilogue<Activation> *const epilogue = epilogue_of(panel_index);
      const typename Tile::Panel panel = panel_of(panel_index);
      Prefetch prefetch = panel_index + 1 < last
                              ? prefetch_of(Tile::bytes_of(panel, steps).following(),
                                            (count + Tile::rows - 1) / Tile::rows, steps)
                              : Prefetch();
      for (int64_t first_row = 0; first_row < count; first_row += Tile::rows)
        multiply(first_row, panel, epilogue, prefetch);
    }
  }
  last_epilogue->rows(sums[side ^ 1], previous, waiting);
}

// The same for rows that are spans of bytes.
template <int Activation, class AnyTile>
void conv_spans_region(const ConvEnd &end, const Context &context, int64_t first_row,
                       int64_t last_row, int first, int last) {
  const oi8_window &window = *end.args.window;
  const WindowSpans spans(*end.args.instruction, conv_chunk_bytes, conv_most_blocks * Tile::rows);
  typename AnyTile::Rows blocks[conv_most_blocks];
  for (int64_t row = first_row; row < last_row; row += spans.rows) {
    const int64_t count = last_row - row < spans.rows ? last_row - row : spans.rows;
    const uint8_t *const from = spans.locate(end.args, row, count, context.scratch);
    const int32_t *const offsets = reinterpret_cast<const int32_t *>(context.scratch);
    for (int64_t i = 0; i < count; i += Tile::rows)
      blocks[i / Tile::rows] =
          AnyTile::spans(from, offsets + i, window.kernel_height, spans.line * window.dilation_y,
                         window.kernel_width * spans.channels);
    conv_panels<Activation>(end, 0, blocks, row, count, first, last);
  }
}

// Pixels [begin, end) by panels [first, last) of all groups.
template <int Activation, class AnyTile>
void conv_region(const ConvArguments &args, const Context &context, int64_t begin, int64_t end,
                 int first, int last) {
  const oi8_conv &instruction = *args.instruction;
  const oi8_window &window = *args.window;
  const ConvEnd ending(args);
  const bool in_place = conv_in_place(window);
  if constexpr (AnyTile::takes_spans)
    if (!in_place && WindowSpans::possible(instruction) &&
        args.pixel_bytes == instruction.reduction / (window.kernel_height * window.kernel_width))
      return conv_spans_region<Activation, AnyTile>(ending, context, begin, end, first, last);
  const int channels = instruction.reduction / (window.kernel_height * window.kernel_width),
            panels = panels_of(instruction.columns / instruction.groups);
  const int64_t lda = in_place ? args.pixel_bytes : conv_row_bytes(instruction),
                chunk = conv_blocks(instruction) * Tile::rows,
                prepared = conv_prepared_bytes(instruction);
  uint8_t *gathered =
      reinterpret_cast<uint8_t *>(context.scratch) + conv_blocks(instruction) * prepared;
  typename Tile::Rows blocks[conv_most_blocks];
  for (int64_t row = begin; row < end; row += chunk) {
    const int64_t count = end - row < chunk ? end - row : chunk;
    for (int group = first / panels; group * panels < last; group++) {
      for (int64_t i = 0; i < count; i += Tile::rows) {
        const int rows = static_cast<int>(count - i < Tile::rows ? count - i : Tile::rows);
        const uint8_t *rows_of_block = in_place ? args.image + (row + i) * lda + group * channels
                                                : gathered + (Tile::keeps_rows ? i * lda : 0);
        if (!in_place)
          gather(args, row + i, rows, group * channels, channels,
                 const_cast<uint8_t *>(rows_of_block), lda);
        blocks[i / Tile::rows] =
            Tile::prepare(rows_of_block, lda, rows, instruction.reduction,
                          context.scratch + i / Tile::rows * prepared, conv_prepared(instruction));
      }
      const int from = first - group * panels, upto = last - group * panels;
      conv_panels<Activation>(ending, group, blocks, row, count, from < 0 ? 0 : from,
                              upto > panels ? panels : upto);
    }
  }
}

// The weights of two taps side by side, for each pair of taps: [pairs][stride][2].
inline void depthwise_pairs(const oi8_conv &instruction, int taps, int stride, int16_t *out) {
  const float *table = static_cast<const float *>(instruction.weight);
  for (int tap = 0; tap < taps; tap += 2)
    for (int channel = 0; channel < stride; channel++) {
      *out++ = static_cast<int16_t>(table[int64_t(tap) * stride + channel]);
      *out++ =
          tap + 1 < taps ? static_cast<int16_t>(table[int64_t(tap + 1) * stride + channel]) : 0;
    }
}

template <int Activation>
void depthwise_region(const ConvArguments &args, const Context &context, int64_t begin,
                      int64_t end) {
  const oi8_conv &instruction = *args.instruction;
  const oi8_window &window = *args.window;
  const int taps = window.kernel_height * window.kernel_width, even_taps = (taps + 1) / 2 * 2,
            stride = static_cast<int>(up_to_panel(instruction.columns));
  int16_t *pairs = reinterpret_cast<int16_t *>(context.scratch);
  depthwise_pairs(instruction, taps, stride, pairs);
  const uint8_t **from = reinterpret_cast<const uint8_t **>(pairs + int64_t(even_taps) * stride);
  uint8_t *outside = reinterpret_cast<uint8_t *>(from + even_taps * depthwise_rows);
  std::memset(outside, args.zero, instruction.columns + 32);
  const ConvEnd ending(args);
  for (int64_t pixel = begin; pixel < end; pixel += depthwise_rows) {
    const int count = static_cast<int>(end - pixel < depthwise_rows ? end - pixel : depthwise_rows);
    for (int i = 0; i < count; i++) {
      const int64_t first_y = (pixel + i) / window.out_width * window.stride_y - window.top,
                    first_x = (pixel + i) % window.out_width * window.stride_x - window.left;
      const uint8_t **line = from + i * even_taps;
      for (int kernel_y = 0; kernel_y < window.kernel_height; kernel_y++) {
        const int64_t y = first_y + kernel_y * window.dilation_y;
        for (int kernel_x = 0; kernel_x < window.kernel_width; kernel_x++) {
          const int64_t x = first_x + kernel_x * window.dilation_x;
          *line++ = y >= 0 && y < window.height && x >= 0 && x < window.width
                        ? args.image + (y * window.width + x) * args.pixel_bytes
                        : outside;
        }
      }
      if (taps % 2) *line = outside;
    }
    for (int channel = 0; channel < instruction.columns; channel += 32) {
      const ConvEpilogue<Activation> epilogue(
          ending, channel, instruction.columns - channel < 32 ? instruction.columns - channel : 32,
          channel, 0);
      alignas(64) int32_t sums[depthwise_rows][32];
      for (int i = 0; i < count; i++) {
        Ints low = set_int(0), high = set_int(0);
        for (int tap = 0; tap < taps; tap += 2) {
          const uint8_t *x = from[i * even_taps + tap] + channel,
                        *y = from[i * even_taps + tap + 1] + channel;
          const int16_t *weight = pairs + (int64_t(tap) / 2 * stride + channel) * 2;
          low = add_products(low, x, y, weight);
          high = add_products(high, x + 16, y + 16, weight + 32);
        }
        store(sums[i], low);
        store(sums[i] + 16, high);
      }
      epilogue.rows(sums[0], pixel, count);
    }
  }
}

inline int64_t conv_pixels(const oi8_conv &instruction) {
  return int64_t(instruction.window.out_height) * instruction.window.out_width;
}
inline int conv_all_panels(const oi8_conv &instruction) {
  return (instruction.columns / instruction.groups + 31) / 32 * instruction.groups;
}

// By pixels unless a thread would have one block more of a few.
inline bool conv_divides_pixels(const oi8_conv &instruction, int threads) {
  return (conv_pixels(instruction) + Tile::rows - 1) / Tile::rows >= 4 * threads ||
         conv_all_panels(instruction) < threads;
}

// This thread's share of so many pixels.
inline Range conv_share(int64_t pixels, const Context &context) {
  const Range blocks = context.share((pixels + Tile::rows - 1) / Tile::rows);
  return {blocks.begin * Tile::rows,
          blocks.end * Tile::rows < pixels ? blocks.end * Tile::rows : pixels};
}

inline void conv_some_pixels(const ConvArguments &args, const Context &context, Range pixels) {
  by_activation(args.instruction->activation, [&](auto activation) {
    conv_region<activation, Tile>(args, context, pixels.begin, pixels.end, 0,
                                  conv_all_panels(*args.instruction));
  });
}

template <class AnyTile>
void conv_by_panels(const ConvArguments &args, const Context &context) {
  const oi8_conv &instruction = *args.instruction;
  const int panels = conv_all_panels(instruction);
  if constexpr (AnyTile::winograd)
    if (winograd<AnyTile>(args, context, panels)) return;
  if (conv_divides_pixels(instruction, context.threads))
    return conv_some_pixels(args, context, conv_share(conv_pixels(instruction), context));
  const Range mine = context.share(panels);
  by_activation(instruction.activation, [&](auto activation) {
    conv_region<activation, AnyTile>(args, context, 0, conv_pixels(instruction),
                                     static_cast<int>(mine.begin), static_cast<int>(mine.end));
  });
}

inline void conv(const oi8_conv &instruction, const Context &context) {
  const ConvArguments args = conv_arguments(instruction, context);
  if (!instruction.depthwise) return conv_by_panels<Tile>(args, context);
  const Range mine = context.share(conv_pixels(instruction));
  by_activation(instruction.activation, [&](auto activation) {
    depthwise_region<activation>(args, context, mine.begin, mine.end);
  });
}

}  // namespace OI8_NAMESPACE
