// EMBEDDING: INT8 rows of a table, each times its scale, to float32; adds another value when given. An index outside the table is
// reported, and its row is zero.
#pragma once

namespace OI8_NAMESPACE {

inline int embedding(const oi8_instruction &o, const Context &ctx) {
  const Range mine = ctx.share(ctx.rows(o));
  const int8_t *table = static_cast<const int8_t *>(o.weight);
  int status = OI8_OK;
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const int64_t id = *ctx.row<int64_t>(o.input[0], r);
    const bool known = id >= 0 && id < o.rows;
    if (!known) status = OI8_BAD_INDEX;
    const int8_t *row = table + (known ? id : 0) * o.columns;
    const F scale = set(known ? o.weight_scale[id] : 0.0f);
    const float *other = o.input[1] >= 0 ? ctx.row<float>(o.input[1], r) : nullptr;
    float *y = ctx.row<float>(o.output[0], r);
    by_16(o.columns, [&](int i, auto count) {
      const F v = mul(to_float(load_bytes(row + i, count)), scale);
      store(y + i, other ? add(load(other + i, count), v) : v, count);
    });
  }
  return status;
}

}  // namespace OI8_NAMESPACE
