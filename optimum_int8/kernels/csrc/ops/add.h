// ADD: one uint8 value or the sum of two, dequantized in float32, to float32 or requantized to
// uint8, from byte `output_column` of the result's rows on.
//
// Accumulator and rounding: float32, one rounding per operation, in the order of numerics/sums.py.
// A single input that has the output's scale and zero point is copied. Any width and number of
// rows; nothing needs alignment, 16 bytes past the last of an input are read. Each thread owns a
// share of the rows.
#pragma once
#include <cstring>

#include "context.h"
#include "math.h"

namespace OI8_NAMESPACE {

inline void add_rows(const oi8_add &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  const bool two = instruction.head.input[OI8_ADD_OTHER] >= 0,
             bytes = instruction.output_scale > 0.0f;
  const Floats scale = set(instruction.input_scale), other_scale = set(instruction.other_scale);
  const Ints zero = set_int(instruction.input_zero_point),
             other_zero = set_int(instruction.other_zero_point);
  const Quantization quantization(bytes ? instruction.output_scale : 1.0f,
                                  instruction.output_zero_point);
  const bool copies = bytes && !two && instruction.input_scale == instruction.output_scale &&
                      instruction.input_zero_point == instruction.output_zero_point;
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const uint8_t *x = context.row<uint8_t>(instruction.head.input[OI8_ADD_ONE], row),
                  *y = two ? context.row<uint8_t>(instruction.head.input[OI8_ADD_OTHER], row) : x;
    uint8_t *out = context.row<uint8_t>(instruction.head.output[OI8_ADD_RESULT], row) +
                   instruction.output_column;
    if (copies) {
      std::memcpy(out, x, instruction.columns);
      continue;
    }
    by_16(instruction.columns, [&](int i, auto count) {
      Floats sum = mul(to_float(sub(load_ubytes(x + i), zero)), scale);
      if (two) sum = add(sum, mul(to_float(sub(load_ubytes(y + i), other_zero)), other_scale));
      if (bytes)
        store_bytes(out + i, quantization(sum), count);
      else
        store(reinterpret_cast<float *>(out) + i, sum, count);
    });
  }
}

}  // namespace OI8_NAMESPACE
