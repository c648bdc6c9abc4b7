// EMBEDDING_BAG: int8 rows of a table, each times its scale (and a factor), as their sum, mean or
// largest values of each bag, float32. An index outside the table is reported (OI8_BAD_INDEX).
//
// Rounding: float32, one per operation, in the order of the indices (numerics.embedding_bag). Any
// width and number of bags, empty ones too; nothing needs alignment. Each thread owns a share of
// the bags.
#pragma once
#include "../isa/target.h"
#include "context.h"

namespace OI8_NAMESPACE {

// 16 columns of a bag.
template <class Count>
inline Floats bag_columns(const oi8_embedding_bag &instruction, int64_t begin, int64_t end,
                          int column, Count count, int64_t *members) {
  Floats total = set(0.0f);
  int64_t found = 0;
  for (int64_t i = begin; i < end; i++) {
    const int64_t index = instruction.indices[i];
    if (index == instruction.skipped) continue;
    const int8_t *const row = instruction.weight + index * instruction.columns + column;
    Floats values = mul(to_float(load_bytes(row, count)), set(instruction.weight_scale[index]));
    if (instruction.factors) values = mul(values, set(instruction.factors[i]));
    if (instruction.mode == OI8_BAG_MAX)
      total = found ? max(total, values) : values;
    else
      total = add(total, values);
    found++;
  }
  *members = found;
  return total;
}

inline int embedding_bag(const oi8_embedding_bag &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  for (int64_t bag = mine.begin; bag < mine.end; bag++) {
    const int64_t begin = instruction.starts[bag], end = instruction.starts[bag + 1];
    for (int64_t i = begin; i < end; i++)
      if (instruction.indices[i] < 0 || instruction.indices[i] >= instruction.rows)
        return OI8_BAD_INDEX;
    float *const target = context.row<float>(instruction.head.output[OI8_BAG_RESULT], bag);
    by_16(instruction.columns, [&](int column, auto count) {
      int64_t members;
      Floats total = bag_columns(instruction, begin, end, column, count, &members);
      if (instruction.mode == OI8_BAG_MEAN && members)
        total = div(total, set(static_cast<float>(members)));
      store(target + column, total, count);
    });
  }
  return OI8_OK;
}

}  // namespace OI8_NAMESPACE
