// LINEAR: uint8 rows by packed int8 weight, int32 accumulators, float32 epilogue: bias, activation, float32 or uint8 result.
//
// Largest K is numerics.MAX_REDUCTION. N, K and the number of rows are free: the weight's padding is zero, so what stands in A's
// padding does not matter. Threads divide the panels, or the rows where there are more row blocks than panels.
#pragma once
#include <cstring>
#include <initializer_list>

namespace OI8_NAMESPACE {

struct LinearArguments {
  const oi8_instruction *o;
  const uint8_t *a;
  int64_t lda;
  char *rows;  // place for the rows of a chunk, as the tile wants them
  const void *prepared;  // form of the weight, or null
  const float *row_scale;  // dynamic: one per row
  const int32_t *row_zero;
  char *out;
  int64_t out_bytes;  // between rows
  const Context *outside;  // says where a row lies, when the result is the caller's
  Stretch after;  // what this thread reads once it is through
};

// The epilogue of one panel: turns int32 sums into results.
template <int Activation, bool ToBytes, bool Dynamic>
class PanelEpilogue {
 public:
  PanelEpilogue(const LinearArguments &arguments, int panel)
      : args_(arguments), column_(panel * 32), width_(arguments.o->columns - panel * 32), grid_{column_grid(*arguments.o, column_), column_grid(*arguments.o, column_ + 16)} {
    const oi8_instruction &o = *args_.o;
    for (int h = 0; h < 2; h++) {
      const int c = column_ + h * 16, n = width_ - h * 16;
      const F scale = load(o.weight_scale + c, n < 0 ? 0 : n);
      const I sums = load(o.weight_sum + c);
      factor_[h] = Dynamic ? scale : mul(set(o.input_scale[0]), scale);
      correction_[h] = Dynamic ? sums : mul(set_int(o.input_zero_point - Tile::offset), sums);
      bias_[h] = o.bias ? load(o.bias + c, n < 0 ? 0 : n) : set(0.0f);
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
  static Grid column_grid(const oi8_instruction &o, int column) {
    if (!ToBytes) return Grid(1.0f, 0);
    if (!o.output_scales) return Grid(o.output_scale, o.output_zero_point);
    const int n = o.columns - column;
    return Grid(div(set(1.0f), n > 0 ? keep(n, load(o.output_scales + column, n), set(1.0f)) : set(1.0f)), o.output_zero_point);
  }

  template <bool Whole>
  inline void some_rows(const int32_t *sums, int64_t row, int count) const {
    const F factor0 = factor_[0], factor1 = factor_[1], bias0 = bias_[0], bias1 = bias_[1];
    const I correction0 = correction_[0], correction1 = correction_[1];
    for (int i = 0; i < count; i++, sums += 32) {
      char *line = args_.out + (args_.outside ? args_.outside->outside(row + i) : row + i) * args_.out_bytes;
      F y0, y1;
      if constexpr (Dynamic) {
        const I zero = set_int(args_.row_zero[row + i] - Tile::offset);
        const F scale = set(args_.row_scale[row + i]);
        y0 = mul(to_float(sub(load(sums), mul(zero, correction0))), mul(scale, factor0));
        y1 = mul(to_float(sub(load(sums + 16), mul(zero, correction1))), mul(scale, factor1));
      } else {
        y0 = mul(to_float(sub(load(sums), correction0)), factor0);
        y1 = mul(to_float(sub(load(sums + 16), correction1)), factor1);
      }
      y0 = activate<Activation>(add(y0, bias0));
      y1 = activate<Activation>(add(y1, bias1));
      if constexpr (ToBytes) {
        uint8_t *out = reinterpret_cast<uint8_t *>(line) + column_;
        if constexpr (Whole) {
          store_quantized<false>(out, mul(y0, grid_[0].inverse), mul(y1, grid_[1].inverse), grid_[0].low, grid_[0].high, grid_[0].zero_point);  // only scales differ
        } else {
          store_bytes(out, grid_[0](y0), width_);
          if (width_ > 16) store_bytes(out + 16, grid_[1](y1), width_ - 16);
        }
      } else {
        float *out = reinterpret_cast<float *>(line) + column_;
        if constexpr (Whole) {
          store(out, y0);
          store(out + 16, y1);
        } else {
          store(out, y0, width_);
          if (width_ > 16) store(out + 16, y1, width_ - 16);
        }
      }
    }
  }

  const LinearArguments &args_;
  const int column_, width_;
  F factor_[2], bias_[2];
  I correction_[2];
  const Grid grid_[2];
};

constexpr int linear_blocks = 1024;  // of rows in a chunk, at most

// Blocks of rows whose bytes, as the tile reads them, stay in L2 while the weights stream by.
inline int64_t linear_chunk_blocks(const oi8_instruction &o, const void *prepared, int64_t lda) {
  constexpr int64_t cached_bytes = 1 << 20, prepared_bytes = 384 << 10;
  const int64_t bytes = Tile::prepared_bytes((o.reduction + 63) / 64, prepared), blocks = bytes ? prepared_bytes / bytes : cached_bytes / lda / Tile::rows;
  return blocks < 1 ? 1 : blocks > linear_blocks ? linear_blocks : blocks;
}

inline int64_t linear_scratch(const oi8_instruction &o) {
  int64_t most = 0;
  for (const void *prepared : {static_cast<const void *>(nullptr), o.prepared}) {
    const int64_t bytes = Tile::prepared_bytes((o.reduction + 63) / 64, prepared), all = bytes ? bytes * linear_chunk_blocks(o, prepared, 1) : 0;
    if (all > most) most = all;
  }
  return most;
}

// Rows [begin, end) of panels [first, last). The epilogue of a block runs between the tile steps of the next one, so that the vector
// units work while the matrix unit does; the next panel, at last that of the next linear, is prefetched meanwhile.
template <int Activation, bool ToBytes, bool Dynamic>
void linear_region(const LinearArguments &args, int64_t begin, int64_t end, int first, int last) {
  using Epilogue = PanelEpilogue<Activation, ToBytes, Dynamic>;
  const int steps = (args.o->reduction + 63) / 64;
  const int64_t block_bytes = Tile::prepared_bytes(steps, args.prepared);
  typename Tile::Rows ready_rows[linear_blocks];
  for (int64_t r = begin; r < end; r += Tile::rows) {
    const int64_t i = (r - begin) / Tile::rows;
    ready_rows[i] = Tile::prepare(args.a + r * args.lda, args.lda, static_cast<int>(end - r < Tile::rows ? end - r : Tile::rows), args.o->reduction, args.rows + i * block_bytes, args.prepared);
  }
  alignas(64) int32_t sums[2][Tile::rows * 32];
  const int64_t blocks = (end - begin + Tile::rows - 1) / Tile::rows;
  for (int p = first; p < last; p++) {
    const Epilogue epilogue(args, p);
    const typename Tile::Panel panel = Tile::panel(args.o->weight, args.prepared, p, steps);
    Ahead ahead = p + 1 < last ? ahead_of(Tile::bytes_of(panel, steps).following(), blocks, steps) : ahead_of(args.after, blocks, steps);
    int64_t previous = begin;
    int waiting = 0, side = 0;
    for (int64_t r = begin; r < end; r += Tile::rows, side ^= 1) {
      const int rows = static_cast<int>(end - r < Tile::rows ? end - r : Tile::rows);
      const int32_t *ready = sums[side ^ 1];
      const int pauses = Tile::pauses(steps), share = (waiting + pauses - 1) / pauses;
      int done = 0;
      Tile::block(ready_rows[(r - begin) / Tile::rows], rows, panel, steps, sums[side], 32, ahead, [&](int) {
        const int count = done + share < waiting ? share : waiting - done;
        epilogue.rows(ready + done * 32, previous + done, count);
        done += count;
      });
      previous = r;
      waiting = rows;
    }
    epilogue.rows(sums[side ^ 1], previous, waiting);
  }
}

using LinearRegion = void (*)(const LinearArguments &, int64_t, int64_t, int, int);

template <int Activation>
LinearRegion linear_variant(bool to_bytes, bool dynamic) {
  if (dynamic) return to_bytes ? linear_region<Activation, true, true> : linear_region<Activation, false, true>;
  return to_bytes ? linear_region<Activation, true, false> : linear_region<Activation, false, false>;
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

// This thread's part of a linear of so many rows: blocks of rows where there are more of them than panels, else panels.
struct LinearShare {
  bool by_rows;
  Range mine;

  LinearShare(const oi8_instruction &o, const Context &ctx, int64_t rows) {
    const int64_t blocks = (rows + Tile::rows - 1) / Tile::rows, panels = (o.columns + 31) / 32;
    by_rows = panels < 2 * ctx.threads && blocks > panels;
    mine = ctx.share(by_rows ? blocks : panels);
  }
};

// What this thread reads first of the next linear of the program: so many bytes of it, and a panel at least.
inline Stretch next_linear(const oi8_instruction &o, const Context &ctx, int64_t bytes = 0) {
  const oi8_instruction *next = &o + 1, *const end = ctx.program->instructions + ctx.program->instruction_count;
  while (next < end && next->op != OI8_LINEAR) next++;
  if (next == end) return {};
  const int64_t rows = ctx.rows(*next);
  const LinearShare share(*next, ctx, rows);
  if (share.mine.begin == share.mine.end) return {};
  const int steps = (next->reduction + 63) / 64;
  const Range panels = share.by_rows ? Range{0, (next->columns + 31) / 32} : share.mine;
  Stretch stretch = Tile::bytes_of(Tile::panel(next->weight, Tile::prepared_for(next->prepared, rows), panels.begin, steps), steps);
  const int64_t wanted = bytes / stretch.count, all = panels.end - panels.begin;
  stretch.count *= wanted < 1 ? 1 : wanted < all ? wanted : all;
  return stretch;
}

inline void linear(const oi8_instruction &o, const Context &ctx) {
  const bool dynamic = o.input[1] >= 0;
  const int64_t rows = ctx.rows(o);
  const LinearArguments args = {&o,
                                ctx.row<uint8_t>(o.input[0], 0),
                                ctx.row_bytes(o.input[0]),
                                ctx.scratch,
                                Tile::prepared_for(o.prepared, rows),
                                dynamic ? ctx.row<float>(o.input[1], 0) : nullptr,
                                dynamic ? ctx.row<int32_t>(o.input[2], 0) : nullptr,
                                ctx.value<char>(o.output[0]),
                                ctx.row_bytes(o.output[0]),
                                ctx.is_external(o.output[0]) ? &ctx : nullptr,
                                next_linear(o, ctx)};
  const LinearRegion region = linear_variant(o.activation, o.output_scale > 0 || o.output_scales, dynamic);
  const LinearShare share(o, ctx, rows);
  const Range mine = share.mine;
  const int64_t begin = share.by_rows ? mine.begin * Tile::rows : 0;
  const int64_t end = share.by_rows ? (mine.end * Tile::rows < rows ? mine.end * Tile::rows : rows) : rows;
  const int first = share.by_rows ? 0 : static_cast<int>(mine.begin), last = share.by_rows ? (o.columns + 31) / 32 : static_cast<int>(mine.end);
  const int64_t chunk = linear_chunk_blocks(o, args.prepared, args.lda) * Tile::rows;
  for (int64_t r = begin; r < end; r += chunk) region(args, r, r + chunk < end ? r + chunk : end, first, last);
}

}  // namespace OI8_NAMESPACE
