// HEAD_NORM: layer norm or RMS norm of each head of float32 rows, from element `column` of their
// rows on, to float32.
//
// Rounding and order of sums: those of NORM, over one head. Any head size, number of heads and
// rows; nothing needs alignment. Each thread owns a share of the rows.
#pragma once
#include "norm.h"

namespace OI8_NAMESPACE {

inline void head_norm(const oi8_head_norm &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  const int width = instruction.columns / instruction.heads;
  const NormShape shape = {width, instruction.kind, instruction.epsilon, instruction.weight,
                           instruction.bias};
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const float *source =
        context.row<float>(instruction.head.input[OI8_HEAD_NORM_FLOATS], row) + instruction.column;
    float *target = context.row<float>(instruction.head.output[OI8_HEAD_NORM_RESULT], row);
    for (int index = 0; index < instruction.heads; index++, source += width, target += width) {
      Floats total = set(0.0f);
      by_16(width, [&](int i, auto count) { total = add(total, load(source + i, count)); });
      const RowNorm normalise = row_norm(shape, source, total);
      by_16(width,
            [&](int i, auto count) { store(target + i, normalise(source, i, count), count); });
    }
  }
}

}  // namespace OI8_NAMESPACE
