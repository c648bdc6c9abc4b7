// ADD: uint8 rows on their grids, one or two of them, summed in float32; to float32, or to uint8 on another grid, from byte `column[2]` on.
// Rows are divided among threads; any width. A single input on the output's grid is copied. The arithmetic is numerics_sum.py's.
#pragma once
#include <cstring>

namespace OI8_NAMESPACE {

inline void add_rows(const oi8_instruction &o, const Context &ctx) {
  const Range mine = ctx.share(ctx.rows(o));
  const bool two = o.input[1] >= 0, bytes = o.output_scale > 0.0f;
  const F scale = set(o.input_scale[0]), other_scale = set(o.input_scale[1]);
  const I zero = set_int(o.input_zero_point), other_zero = set_int(static_cast<int32_t>(o.parameter));
  const Grid grid(bytes ? o.output_scale : 1.0f, o.output_zero_point);
  const bool copies = bytes && !two && o.input_scale[0] == o.output_scale && o.input_zero_point == o.output_zero_point;
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const uint8_t *x = ctx.row<uint8_t>(o.input[0], r), *y = two ? ctx.row<uint8_t>(o.input[1], r) : x;
    uint8_t *out = ctx.row<uint8_t>(o.output[0], r) + o.column[2];
    if (copies) {
      std::memcpy(out, x, o.columns);
      continue;
    }
    by_16(o.columns, [&](int i, auto count) {
      F sum = mul(to_float(sub(load_ubytes(x + i), zero)), scale);
      if (two) sum = add(sum, mul(to_float(sub(load_ubytes(y + i), other_zero)), other_scale));
      if (bytes)
        store_bytes(out + i, grid(sum), count);
      else
        store(reinterpret_cast<float *>(out) + i, sum, count);
    });
  }
}

}  // namespace OI8_NAMESPACE
