// EMBEDDING: INT8 rows of a table, each times its scale, to float32; adds another value when given.
// An index outside the table is reported, and its row is zero.
#pragma once

namespace OI8_NAMESPACE {

inline int embedding(const oi8_instruction &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction));
  const int8_t *table = static_cast<const int8_t *>(instruction.weight);
  int status = OI8_OK;
  for (int64_t row_index = mine.begin; row_index < mine.end; row_index++) {
    const int64_t index = *context.row<int64_t>(instruction.input[0], row_index);
    const bool known = index >= 0 && index < instruction.rows;
    if (!known) status = OI8_BAD_INDEX;
    const int8_t *row = table + (known ? index : 0) * instruction.columns;
    const Floats scale = set(known ? instruction.weight_scale[index] : 0.0f);
    const float *other =
        instruction.input[1] >= 0 ? context.row<float>(instruction.input[1], row_index) : nullptr;
    float *target = context.row<float>(instruction.output[0], row_index);
    by_16(instruction.columns, [&](int i, auto count) {
      const Floats values = mul(to_float(load_bytes(row + i, count)), scale);
      store(target + i, other ? add(load(other + i, count), values) : values, count);
    });
  }
  return status;
}

}  // namespace OI8_NAMESPACE
