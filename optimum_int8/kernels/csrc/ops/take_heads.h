// TAKE_HEADS: pieces of float32 rows, one beside the other: queries, keys or values of a linear
// that gives those of each head together.
//
// float32, copied. Any width, number of pieces and distance between them; nothing needs alignment.
// Each thread owns a share of the rows.
#pragma once
#include <cstring>

#include "context.h"

namespace OI8_NAMESPACE {

inline void take_heads(const oi8_take_heads &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  const int width = instruction.columns / instruction.heads;
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const float *source =
        context.row<float>(instruction.head.input[OI8_TAKE_HEADS_FLOATS], row) + instruction.column;
    float *target = context.row<float>(instruction.head.output[OI8_TAKE_HEADS_RESULT], row);
    for (int head = 0; head < instruction.heads; head++)
      std::memcpy(target + head * width, source + head * instruction.stride,
                  static_cast<size_t>(width) * sizeof(float));
  }
}

}  // namespace OI8_NAMESPACE
