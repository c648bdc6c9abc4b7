// EMBEDDING: int8 rows of a table, each times its scale, to float32; adds another value where there
// is one. An index outside the table is reported (OI8_BAD_INDEX), and its row is zero.
//
// Rounding: one product and one sum in float32. Any width and number of rows; nothing needs
// alignment. Each thread owns a share of the rows.
#pragma once
#include "../isa/target.h"
#include "context.h"

namespace OI8_NAMESPACE {

inline int embedding(const oi8_embedding &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  const int8_t *table = instruction.weight;
  int status = OI8_OK;
  for (int64_t row_index = mine.begin; row_index < mine.end; row_index++) {
    const int64_t index =
        *context.row<int64_t>(instruction.head.input[OI8_EMBEDDING_INDICES], row_index);
    const bool known = index >= 0 && index < instruction.rows;
    if (!known) status = OI8_BAD_INDEX;
    const int8_t *row = table + (known ? index : 0) * instruction.columns;
    const Floats scale = set(known ? instruction.weight_scale[index] : 0.0f);
    const float *other =
        instruction.head.input[OI8_EMBEDDING_ADDED] >= 0
            ? context.row<float>(instruction.head.input[OI8_EMBEDDING_ADDED], row_index)
            : nullptr;
    float *target = context.row<float>(instruction.head.output[OI8_EMBEDDING_RESULT], row_index);
    by_16(instruction.columns, [&](int i, auto count) {
      const Floats values = mul(to_float(load_bytes(row + i, count)), scale);
      store(target + i, other ? add(load(other + i, count), values) : values, count);
    });
  }
  return status;
}

}  // namespace OI8_NAMESPACE
