// LINEAR: uint8 rows by packed int8 weights (layout.h); epilogue: bias, activation, to float32 or
// uint8.
//
// Accumulator: int32, exact up to K = numerics.MAX_REDUCTION. Rounding: the epilogue in float32,
// one rounding per operation, in the order of numerics.linear. N, K and the number of rows are
// free: the padding of the weights is zero, so that the padding of the rows may hold anything, but
// rows must be readable up to whole steps and blocks (optimum_int8.h). Each thread owns a share of
// the panels, or of the blocks of rows where there are more of them than panels.
#pragma once
#include <cstring>
#include <initializer_list>

#include "../layout.h"
#include "context.h"
#include "math.h"
#include "operator.h"

namespace OI8_NAMESPACE {

struct LinearArguments {
  const oi8_linear *instruction;
  const uint8_t *inputs;
  int64_t lda;
  char *rows;              // place for the rows of a chunk, as the tile wants them
  const void *prepared;    // form of the weight, or null
  const float *row_scale;  // dynamic: one per row
  const int32_t *row_zero;
  char *out;
  int64_t out_bytes;       // between rows
  const Context *outside;  // says where a row lies, when the result is the caller's
  Span after;              // what this thread reads once it is through
};

// The epilogue of one panel: turns int32 sums into results.
template <int Activation, bool ToBytes, bool Dynamic>
class PanelEpilogue {
 public:
  PanelEpilogue(const LinearArguments &arguments, int panel)
      : args_(arguments),
        column_(panel * panel_columns),
        width_(arguments.instruction->columns - panel * panel_columns),
        quantization_{column_quantization(*arguments.instruction, column_),
                      column_quantization(*arguments.instruction, column_ + 16)} {
    const oi8_linear &instruction = *args_.instruction;
    for (int half = 0; half < 2; half++) {
      const int column = column_ + half * 16, count = width_ - half * 16;
      const Floats scale = load(instruction.weight_scale + column, count < 0 ? 0 : count);
      const Ints sums = load(instruction.weight_sum + column);
      factor_[half] = Dynamic ? scale : mul(set(instruction.input_scale), scale);
      correction_[half] =
          Dynamic ? sums : mul(set_int(instruction.input_zero_point - Tile::offset), sums);
      bias_[half] =
          instruction.bias ? load(instruction.bias + column, count < 0 ? 0 : count) : set(0.0f);
    }
  }

  // Results of `count` rows from `row` on; a whole panel is written without masks.
  inline void rows(const int32_t *sums, int64_t row, int count) const {
    if (width_ >= 32)
      some_rows<true>(sums, row, count);
    else
      some_rows<false>(sums, row, count);
  }

 private:
  static Quantization column_quantization(const oi8_linear &instruction, int column) {
    if (!ToBytes) return Quantization(1.0f, 0);
    if (!instruction.output_scales)
      return Quantization(instruction.output_scale, instruction.output_zero_point);
    const int count = instruction.columns - column;
    return Quantization(
        div(set(1.0f), count > 0
                           ? keep(count, load(instruction.output_scales + column, count), set(1.0f))
                           : set(1.0f)),
        instruction.output_zero_point);
  }

  template <bool Whole>
  inline void some_rows(const int32_t *sums, int64_t row, int count) const {
    const Floats factor0 = factor_[0], factor1 = factor_[1], bias0 = bias_[0], bias1 = bias_[1];
    const Ints correction0 = correction_[0], correction1 = correction_[1];
    for (int i = 0; i < count; i++, sums += 32) {
      char *line =
          args_.out + (args_.outside ? args_.outside->outside(row + i) : row + i) * args_.out_bytes;
      Floats low, high;
      if constexpr (Dynamic) {
        const Ints zero = set_int(args_.row_zero[row + i] - Tile::offset);
        const Floats scale = set(args_.row_scale[row + i]);
        low = mul(to_float(sub(load(sums), mul(zero, correction0))), mul(scale, factor0));
        high = mul(to_float(sub(load(sums + 16), mul(zero, correction1))), mul(scale, factor1));
      } else {
        low = mul(to_float(sub(load(sums), correction0)), factor0);
        high = mul(to_float(sub(load(sums + 16), correction1)), factor1);
      }
      low = activate<Activation>(add(low, bias0));
      high = activate<Activation>(add(high, bias1));
      if constexpr (ToBytes) {
        uint8_t *out = reinterpret_cast<uint8_t *>(line) + column_;
        if constexpr (Whole) {
          store_quantized<false>(out, mul(low, quantization_[0].inverse),
                                 mul(high, quantization_[1].inverse), quantization_[0].low,
                                 quantization_[0].high,
                                 quantization_[0].zero_point);  // only scales differ
        } else {
          store_bytes(out, quantization_[0](low), width_);
          if (width_ > 16) store_bytes(out + 16, quantization_[1](high), width_ - 16);
        }
      } else {
        float *out = reinterpret_cast<float *>(line) + column_;
        if constexpr (Whole) {
          store(out, low);
          store(out + 16, high);
        } else {
          store(out, low, width_);
          if (width_ > 16) store(out + 16, high, width_ - 16);
        }
      }
    }
  }

  const LinearArguments &args_;
  const int column_, width_;
  Floats factor_[2], bias_[2];
  Ints correction_[2];
  const Quantization quantization_[2];
};

constexpr int linear_blocks = 1024;  // of rows in a chunk, at most

// Blocks of rows whose bytes, as the tile reads them, stay in L2 while the weights stream by.
inline int64_t linear_chunk_blocks(const oi8_linear &instruction, const void *prepared,
                                   int64_t lda) {
  constexpr int64_t cached_bytes = 1 << 20, prepared_bytes = 384 << 10;
  const int64_t bytes = Tile::prepared_bytes(steps_of(instruction.reduction), prepared),
                blocks = bytes ? prepared_bytes / bytes : cached_bytes / lda / Tile::rows;
  return blocks < 1 ? 1 : blocks > linear_blocks ? linear_blocks : blocks;
}

inline int64_t linear_scratch(const oi8_linear &instruction, const oi8_call &) {
  int64_t most = 0;
  for (const void *prepared : {static_cast<const void *>(nullptr), instruction.prepared}) {
    const int64_t bytes = Tile::prepared_bytes(steps_of(instruction.reduction), prepared),
                  all = bytes ? bytes * linear_chunk_blocks(instruction, prepared, 1) : 0;
    if (all > most) most = all;
  }
  return most;
}

// Rows [begin, end) of panels [first, last). The epilogue of a block runs between the tile steps of
// the next one, so that the vector units work while the matrix unit does; the next panel, at last
// that of the next linear, is prefetched meanwhile.
template <int Activation, bool ToBytes, bool Dynamic>
void linear_region(const LinearArguments &args, int64_t begin, int64_t end, int first, int last) {
  using Epilogue = PanelEpilogue<Activation, ToBytes, Dynamic>;
  const int steps = steps_of(args.instruction->reduction);
  const int64_t block_bytes = Tile::prepared_bytes(steps, args.prepared);
  typename Tile::Rows ready_rows[linear_blocks];
  for (int64_t row = begin; row < end; row += Tile::rows) {
    const int64_t block = (row - begin) / Tile::rows;
    ready_rows[block] =
        Tile::prepare(args.inputs + row * args.lda, args.lda,
                      static_cast<int>(end - row < Tile::rows ? end - row : Tile::rows),
                      args.instruction->reduction, args.rows + block * block_bytes, args.prepared);
  }
  alignas(64) int32_t sums[2][Tile::rows * panel_columns];
  const int64_t blocks = (end - begin + Tile::rows - 1) / Tile::rows;
  for (int panel_index = first; panel_index < last; panel_index++) {
    const Epilogue epilogue(args, panel_index);
    const typename Tile::Panel panel =
        Tile::panel(args.instruction->weight, args.prepared, panel_index, steps);
    Prefetch prefetch = panel_index + 1 < last
                            ? prefetch_of(Tile::bytes_of(panel, steps).following(), blocks, steps)
                            : prefetch_of(args.after, blocks, steps);
    int64_t previous = begin;
    int waiting = 0, side = 0;
    for (int64_t row = begin; row < end; row += Tile::rows, side ^= 1) {
      const int rows = static_cast<int>(end - row < Tile::rows ? end - row : Tile::rows);
      const int32_t *ready = sums[side ^ 1];
      const int pauses = Tile::pauses(steps), share = (waiting + pauses - 1) / pauses;
      int done = 0;
      Tile::block(ready_rows[(row - begin) / Tile::rows], rows, panel, steps, sums[side], 32,
                  prefetch, [&](int) {
                    const int count = done + share < waiting ? share : waiting - done;
                    epilogue.rows(ready + done * panel_columns, previous + done, count);
                    done += count;
                  });
      previous = row;
      waiting = rows;
    }
    epilogue.rows(sums[side ^ 1], previous, waiting);
  }
}

using LinearRegion = void (*)(const LinearArguments &, int64_t, int64_t, int, int);

template <int Activation>
LinearRegion linear_variant(bool to_bytes, bool dynamic) {
  if (dynamic)
    return to_bytes ? linear_region<Activation, true, true>
                    : linear_region<Activation, false, true>;
  return to_bytes ? linear_region<Activation, true, false>
                  : linear_region<Activation, false, false>;
}

inline LinearRegion linear_variant(int activation, bool to_bytes, bool dynamic) {
  switch (activation) {
    case OI8_RELU: return linear_variant<OI8_RELU>(to_bytes, dynamic);
    case OI8_GELU: return linear_variant<OI8_GELU>(to_bytes, dynamic);
    case OI8_GELU_TANH: return linear_variant<OI8_GELU_TANH>(to_bytes, dynamic);
    case OI8_SILU: return linear_variant<OI8_SILU>(to_bytes, dynamic);
    case OI8_TANH: return linear_variant<OI8_TANH>(to_bytes, dynamic);
    default: return linear_variant<OI8_NONE>(to_bytes, dynamic);
  }
}

// This thread's part of a linear of so many rows: blocks of rows where there are more of them than
// panels, else panels.
struct LinearShare {
  bool by_rows;
  Range mine;

  LinearShare(const oi8_linear &instruction, const Context &context, int64_t rows) {
    const int64_t blocks = (rows + Tile::rows - 1) / Tile::rows,
                  panels = panels_of(instruction.columns);
    by_rows = panels < 2 * context.threads && blocks > panels;
    mine = context.share(by_rows ? blocks : panels);
  }
};

// What this thread reads first of the next linear of the program: so many bytes of it, and a panel
// at least.
inline Span next_linear(const Context &context, int64_t bytes = 0) {
  const oi8_program &program = *context.program;
  int index = context.position + 1;
  while (index < program.instruction_count && program.instructions[index]->op != OI8_LINEAR)
    index++;
  if (index == program.instruction_count) return {};
  const oi8_linear *const next = &parameters_of<oi8_linear>(*program.instructions[index]);
  const int64_t rows = context.rows(next->head);
  const LinearShare share(*next, context, rows);
  if (share.mine.begin == share.mine.end) return {};
  const int steps = steps_of(next->reduction);
  const Range panels = share.by_rows ? Range{0, panels_of(next->columns)} : share.mine;
  Span span_of_weights = Tile::bytes_of(
      Tile::panel(next->weight, Tile::prepared_for(next->prepared, rows), panels.begin, steps),
      steps);
  const int64_t wanted = bytes / span_of_weights.count, all = panels.end - panels.begin;
  span_of_weights.count *= wanted < 1 ? 1 : wanted < all ? wanted : all;
  return span_of_weights;
}

inline void linear(const oi8_linear &instruction, const Context &context) {
  const bool dynamic = instruction.head.input[OI8_LINEAR_SCALES] >= 0;
  const int64_t rows = context.rows(instruction.head);
  const LinearArguments args = {
      &instruction,
      context.row<uint8_t>(instruction.head.input[OI8_LINEAR_ROWS], 0),
      context.row_bytes(instruction.head.input[OI8_LINEAR_ROWS]),
      context.scratch,
      Tile::prepared_for(instruction.prepared, rows),
      dynamic ? context.row<float>(instruction.head.input[OI8_LINEAR_SCALES], 0) : nullptr,
      dynamic ? context.row<int32_t>(instruction.head.input[OI8_LINEAR_ZERO_POINTS], 0) : nullptr,
      context.value<char>(instruction.head.output[OI8_LINEAR_RESULT]),
      context.row_bytes(instruction.head.output[OI8_LINEAR_RESULT]),
      context.is_external(instruction.head.output[OI8_LINEAR_RESULT]) ? &context : nullptr,
      next_linear(context)};
  const LinearRegion region = linear_variant(
      instruction.activation, instruction.output_scale > 0 || instruction.output_scales, dynamic);
  const LinearShare share(instruction, context, rows);
  const Range mine = share.mine;
  const int64_t begin = share.by_rows ? mine.begin * Tile::rows : 0;
  const int64_t end =
      share.by_rows ? (mine.end * Tile::rows < rows ? mine.end * Tile::rows : rows) : rows;
  const int first = share.by_rows ? 0 : static_cast<int>(mine.begin),
            last = share.by_rows ? panels_of(instruction.columns) : static_cast<int>(mine.end);
  const int64_t chunk = linear_chunk_blocks(instruction, args.prepared, args.lda) * Tile::rows;
  for (int64_t row = begin; row < end; row += chunk)
    region(args, row, row + chunk < end ? row + chunk : end, first, last);
}

}  // namespace OI8_NAMESPACE
