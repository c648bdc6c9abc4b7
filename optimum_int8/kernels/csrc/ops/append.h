// APPEND: rows of keys or values that there are already, and after them those of this call's
// tokens, from element `column` of their rows on. Where the result begins where the earlier rows
// lie, these stay.
//
// float32, copied. Any width and number of rows; nothing needs alignment. The results of each
// sequence are those of its keys, the earlier ones all but the last `length`. Each thread owns a
// share of the rows.
#pragma once
#include <cstring>

#include "context.h"

namespace OI8_NAMESPACE {

inline void append(const oi8_append &instruction, const Context &context) {
  const int64_t keys = context.keys(instruction.head).length, earlier = keys - context.call->length;
  const size_t bytes = static_cast<size_t>(instruction.columns) * sizeof(float);
  const bool stays = context.value<char>(instruction.head.input[OI8_APPEND_EARLIER]) ==
                     context.value<char>(instruction.head.output[OI8_APPEND_RESULT]);
  const Range mine = context.share(context.batch * keys);
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const int64_t sequence = row / keys, key = row % keys;
    if (key < earlier && stays) continue;
    const float *source =
        key < earlier ? context.row<float>(instruction.head.input[OI8_APPEND_EARLIER],
                                           sequence * earlier + key)
                      : context.row<float>(instruction.head.input[OI8_APPEND_ROWS],
                                           sequence * context.call->length + key - earlier) +
                            instruction.column;
    std::memcpy(context.row<float>(instruction.head.output[OI8_APPEND_RESULT], row), source, bytes);
  }
}

}  // namespace OI8_NAMESPACE
