// ADD: uint8 rows on their grids, one or two of them, summed in float32; to float32, or to uint8 on
// another grid, from byte `column[2]` on. Rows are divided among threads; any width. A single input
// on the output's grid is copied. The arithmetic is numerics_sum.py's.
#pragma once
#include <cstring>

namespace OI8_NAMESPACE {

inline void add_rows(const oi8_instruction &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction));
  const bool two = instruction.input[1] >= 0, bytes = instruction.output_scale > 0.0f;
  const Floats scale = set(instruction.input_scale[0]),
               other_scale = set(instruction.input_scale[1]);
  const Ints zero = set_int(instruction.input_zero_point),
             other_zero = set_int(static_cast<int32_t>(instruction.parameter));
  const Quantization grid(bytes ? instruction.output_scale : 1.0f, instruction.output_zero_point);
  const bool copies = bytes && !two && instruction.input_scale[0] == instruction.output_scale &&
                      instruction.input_zero_point == instruction.output_zero_point;
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const uint8_t *x = context.row<uint8_t>(instruction.input[0], row),
                  *y = two ? context.row<uint8_t>(instruction.input[1], row) : x;
    uint8_t *out = context.row<uint8_t>(instruction.output[0], row) + instruction.column[2];
    if (copies) {
      std::memcpy(out, x, instruction.columns);
      continue;
    }
    by_16(instruction.columns, [&](int i, auto count) {
      Floats sum = mul(to_float(sub(load_ubytes(x + i), zero)), scale);
      if (two) sum = add(sum, mul(to_float(sub(load_ubytes(y + i), other_zero)), other_scale));
      if (bytes)
        store_bytes(out + i, grid(sum), count);
      else
        store(reinterpret_cast<float *>(out) + i, sum, count);
    });
  }
}

}  // namespace OI8_NAMESPACE
