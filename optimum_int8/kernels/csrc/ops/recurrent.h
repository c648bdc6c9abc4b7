// RECURRENT: the steps of an LSTM or a GRU, both directions at once. The part of the input comes
// as float32 rows (a LINEAR made it for all steps); each step quantizes the hidden state, a range
// per row, multiplies it by packed int8 weights and updates the state.
//
// Accumulator: int32, exact up to K = numerics.MAX_REDUCTION. Rounding: float32, one rounding per
// operation, in the order of numerics.recurrent; a row depends on no other. Any number of units,
// sequences and steps; nothing needs alignment. The panels, sums, scales and biases of a direction
// lie block by block: 32 units of each gate, zero padded (kernels/packing_recurrent.py).
//
// Where sequences and directions are enough to share, each thread owns some of them, from the first
// step to the last. Otherwise each owns some blocks of units, so that its weights stay in its
// cache, and the threads meet after each step (meeting.h).
#pragma once
#include "../layout.h"
#include "meeting.h"
#include "quantize.h"

namespace OI8_NAMESPACE {

constexpr int recurrent_rows = 64;  // whose bytes are multiplied while the weights stream by
constexpr int most_gates = 4;
static_assert(recurrent_rows % Tile::rows == 0, "a chunk is whole blocks of the tile");

// What a thread computes of a direction in each step.
struct RecurrentPart {
  int direction;
  Range sequences, blocks;
};

inline Floats sigmoid(Floats x) { return div(set(1.0f), add(exp(sub(set(0.0f), x)), set(1.0f))); }

class RecurrentLayer {
 public:
  RecurrentLayer(const oi8_recurrent &instruction, const Context &context)
      : layer_(instruction),
        units_(instruction.columns),
        blocks_(panels_of(instruction.columns)),
        steps_of_tile_(steps_of(instruction.columns)),
        line_(up_to_step(instruction.columns)),
        prepared_(Tile::prepared_for(instruction.prepared, instruction.batch)),
        inputs_(context.value<float>(instruction.head.input[OI8_RECURRENT_INPUTS])),
        first_hidden_(context.value<float>(instruction.head.input[OI8_RECURRENT_HIDDEN])),
        hidden_(context.value<float>(instruction.head.output[OI8_RECURRENT_LAST_HIDDEN])),
        out_(context.value<float>(instruction.head.output[OI8_RECURRENT_RESULT])) {
    if (instruction.gates == 4) {
      first_cell_ = context.value<float>(instruction.head.input[OI8_RECURRENT_CELL]);
      cell_ = context.value<float>(instruction.head.output[OI8_RECURRENT_LAST_CELL]);
    }
    const int64_t chunk_bytes = recurrent_rows * line_ + 64;
    bytes_ = reinterpret_cast<uint8_t *>(context.scratch + Meeting::bytes);
    scales_ = reinterpret_cast<float *>(bytes_ + chunk_bytes);
    zeros_ = reinterpret_cast<int32_t *>(scales_ + recurrent_rows);
    rewritten_ = reinterpret_cast<char *>(zeros_ + recurrent_rows);
  }

  static int64_t scratch(const oi8_recurrent &instruction) {
    const int steps = steps_of(instruction.columns);
    const int64_t line = up_to_step(instruction.columns) + 8,
                  chunk = Meeting::bytes + recurrent_rows * line + 64,
                  plain = Tile::prepared_bytes(steps, nullptr),
                  prepared = Tile::prepared_bytes(steps, instruction.prepared);
    return chunk + recurrent_rows / Tile::rows * (plain > prepared ? plain : prepared);
  }

  int64_t time_of(int direction, int64_t step) const {
    return direction ? layer_.length - 1 - step : step;
  }

  // One step of a part.
  template <int Gates>
  void advance(const RecurrentPart &part, int64_t time) {
    const int64_t active = sequences_at(time),
                  end = part.sequences.end < active ? part.sequences.end : active;
    for (int64_t row = part.sequences.begin; row < end; row += recurrent_rows) {
      const int count = static_cast<int>(end - row < recurrent_rows ? end - row : recurrent_rows);
      quantize_hidden(part.direction, time, row, count);
      for (int64_t block = part.blocks.begin; block < part.blocks.end; block++)
        for (int done = 0; done < count; done += Tile::rows) {
          const int rows = count - done < Tile::rows ? count - done : Tile::rows;
          multiply<Gates>(part.direction, block, done, rows);
          if constexpr (Gates == 4)
            update_lstm(part.direction, time, block, row + done, done, rows);
          else
            update_gru(part.direction, time, block, row + done, done, rows);
        }
    }
  }

 private:
  int64_t sequences_at(int64_t time) const {
    return layer_.sizes ? layer_.sizes[time] : layer_.batch;
  }
  // Where a sequence's row of a time lies, among the rows of the inputs and of the result.
  int64_t row_at(int64_t time, int64_t sequence) const {
    if (layer_.starts) return layer_.starts[time] + sequence;
    return layer_.batch_first ? sequence * layer_.length + time : time * layer_.batch + sequence;
  }
  bool begins(int direction, int64_t time, int64_t sequence) const {
    if (!direction) return time == 0;
    return time == layer_.length - 1 || sequence >= sequences_at(time + 1);
  }
  int64_t state_at(int direction, int64_t sequence) const {
    return (int64_t(direction) * layer_.batch + sequence) * units_;
  }
  float *result_at(int direction, int64_t time, int64_t sequence) const {
    return out_ + (row_at(time, sequence) * layer_.directions + direction) * units_;
  }
  const float *hidden_before(int direction, int64_t time, int64_t sequence) const {
    if (begins(direction, time, sequence)) return first_hidden_ + state_at(direction, sequence);
    return result_at(direction, direction ? time + 1 : time - 1, sequence);
  }

  void quantize_hidden(int direction, int64_t time, int64_t first, int count) {
    for (int row = 0; row < count; row++) {
      const float *source = hidden_before(direction, time, first + row);
      quantize_row(source, bytes_ + row * line_, units_,
                   affine_quantization(source, units_, scales_ + row, zeros_ + row));
    }
    const int64_t block_bytes = Tile::prepared_bytes(steps_of_tile_, prepared_);
    for (int row = 0; row < count; row += Tile::rows)
      ready_[row / Tile::rows] = Tile::prepare(
          bytes_ + row * line_, line_, count - row < Tile::rows ? count - row : Tile::rows, units_,
          rewritten_ + row / Tile::rows * block_bytes, prepared_);
  }

  template <int Gates>
  void multiply(int direction, int64_t block, int done, int rows) {
    const int64_t first = (direction * blocks_ + block) * Gates;
    for (int gate = 0; gate < Gates; gate++) {
      Prefetch none;
      Tile::block(ready_[done / Tile::rows], rows,
                  Tile::panel(layer_.weight, prepared_, first + gate, steps_of_tile_),
                  steps_of_tile_, sums_[gate], panel_columns, none, [](int) {});
    }
  }

  // 16 units of a row: what the product with the hidden state gives a gate.
  inline __attribute__((always_inline)) Floats product(int direction, int64_t block, int gate,
                                                       int gates, int half, int row,
                                                       int done) const {
    const int64_t column =
        ((direction * blocks_ + block) * gates + gate) * panel_columns + half * half_columns;
    const Ints zero = set_int(zeros_[done + row] - Tile::offset),
               sums = load(sums_[gate] + row * panel_columns + half * half_columns);
    const Floats scale = mul(set(scales_[done + row]), load(layer_.weight_scale + column)),
                 scaled =
                     mul(to_float(sub(sums, mul(zero, load(layer_.weight_sum + column)))), scale);
    return layer_.bias ? add(scaled, load(layer_.bias + column)) : scaled;
  }

  // Calls body(row, half, first unit, number of units) for each 16 units of some rows of a block.
  template <class Body>
  inline __attribute__((always_inline)) void each(int64_t block, int rows, Body &&body) const {
    for (int row = 0; row < rows; row++)
      for (int half = 0; half < 2; half++) {
        const int unit = static_cast<int>(block) * panel_columns + half * half_columns,
                  left = units_ - unit;
        if (left > 0) body(row, half, unit, left < half_columns ? left : half_columns);
      }
  }

  void update_lstm(int direction, int64_t time, int64_t block, int64_t first, int done, int rows) {
    each(block, rows, [&](int row, int half, int unit, int count) {
      const int64_t sequence = first + row, state = state_at(direction, sequence) + unit;
      const float *inputs = inputs_at(direction, time, sequence, 4) + unit;
      const auto gate = [&](int index) __attribute__((always_inline)) {
        return add(load(inputs + index * units_, count),
                   product(direction, block, index, 4, half, row, done));
      };
      const float *before = begins(direction, time, sequence) ? first_cell_ : cell_;
      const Floats input = sigmoid(gate(0)), forget = sigmoid(gate(1)), candidate = tanh(gate(2)),
                   output = sigmoid(gate(3));
      const Floats cell = add(mul(forget, load(before + state, count)), mul(input, candidate));
      store(cell_ + state, cell, count);
      keep_hidden(mul(output, tanh(cell)), direction, time, sequence, unit, count);
    });
  }

  void update_gru(int direction, int64_t time, int64_t block, int64_t first, int done, int rows) {
    each(block, rows, [&](int row, int half, int unit, int count) {
      const int64_t sequence = first + row;
      const float *inputs = inputs_at(direction, time, sequence, 3) + unit;
      const auto hidden = [&](int index) __attribute__((always_inline)) {
        return product(direction, block, index, 3, half, row, done);
      };
      const Floats reset = sigmoid(add(load(inputs, count), hidden(0))),
                   update = sigmoid(add(load(inputs + units_, count), hidden(1))),
                   candidate = tanh(add(load(inputs + 2 * units_, count), mul(reset, hidden(2)))),
                   before = load(hidden_before(direction, time, sequence) + unit, count);
      keep_hidden(add(candidate, mul(update, sub(before, candidate))), direction, time, sequence,
                  unit, count);
    });
  }

  const float *inputs_at(int direction, int64_t time, int64_t sequence, int gates) const {
    return inputs_ + (row_at(time, sequence) * layer_.directions + direction) * gates * units_;
  }

  void keep_hidden(Floats hidden, int direction, int64_t time, int64_t sequence, int unit,
                   int count) const {
    store(result_at(direction, time, sequence) + unit, hidden, count);
    store(hidden_ + state_at(direction, sequence) + unit, hidden, count);
  }

  const oi8_recurrent &layer_;
  const int units_;
  const int64_t blocks_;
  const int steps_of_tile_;
  const int64_t line_;
  const void *const prepared_;
  const float *const inputs_, *const first_hidden_, *first_cell_ = nullptr;
  float *const hidden_, *cell_ = nullptr, *const out_;
  uint8_t *bytes_;
  float *scales_;
  int32_t *zeros_;
  char *rewritten_;
  typename Tile::Rows ready_[recurrent_rows / Tile::rows];
  alignas(64) int32_t sums_[most_gates][Tile::rows * panel_columns];
};

inline int64_t recurrent_scratch(const oi8_recurrent &instruction, const oi8_call &) {
  return RecurrentLayer::scratch(instruction);
}

// Whether threads share sequences and directions and not the units.
inline bool shares_sequences(const oi8_recurrent &instruction, int threads) {
  constexpr int64_t small_weights = 128 << 10, cached_weights = 512 << 10, many = 4;
  const int64_t lanes = int64_t(instruction.batch) * instruction.directions,
                bytes = up_to_step(instruction.columns) * up_to_panel(instruction.columns) *
                        instruction.gates;
  return threads == 1 || bytes <= small_weights || (lanes >= threads && bytes <= cached_weights) ||
         lanes >= many * threads;
}

inline Range within(const Range &all, int64_t begin, int64_t size) {
  const int64_t first = all.begin - begin, last = all.end - begin;
  return {first < 0 ? 0 : first, last > size ? size : last};
}

template <int Gates>
void recurrent_steps(const oi8_recurrent &instruction, const Context &context) {
  RecurrentLayer layer(instruction, context);
  const bool by_sequence = shares_sequences(instruction, context.threads);
  const int64_t blocks = panels_of(instruction.columns),
                pieces = by_sequence ? instruction.batch : blocks;
  const Range mine = context.share(pieces * instruction.directions);
  Meeting *const meeting =
      by_sequence ? nullptr : Meeting::begin(context.memory->scratch, context.thread);
  for (int64_t step = 0; step < instruction.length; step++) {
    for (int direction = 0; direction < instruction.directions; direction++) {
      const Range part = within(mine, direction * pieces, pieces);
      if (part.begin >= part.end) continue;
      layer.advance<Gates>({direction, by_sequence ? part : Range{0, instruction.batch},
                            by_sequence ? Range{0, blocks} : part},
                           layer.time_of(direction, step));
    }
    if (meeting) meeting->wait(context.threads, step + 1);
  }
}

inline void recurrent(const oi8_recurrent &instruction, const Context &context) {
  if (instruction.gates == 4)
    recurrent_steps<4>(instruction, context);
  else
    recurrent_steps<3>(instruction, context);
}

}  // namespace OI8_NAMESPACE
