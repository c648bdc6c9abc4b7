// GATED: activation(gate) * up of float32 rows, each from element `column` of its rows on, to
// float32, to uint8 with a given scale and zero point, or to uint8 with one of each row.
//
// Rounding: the steps of the activation, then one product, all in float32 (numerics.gated). Any
// width and number of rows; nothing needs alignment. Each thread owns a share of the rows and a row
// of scratch.
#pragma once
#include "../layout.h"
#include "quantize.h"

namespace OI8_NAMESPACE {

inline int64_t gated_scratch(const oi8_gated &instruction, const oi8_call &) {
  return (int64_t(instruction.columns) + half_columns) * 4;  // a row that has no place in a result
}

template <int Activation>
struct GatedRow {
  const float *gate, *up;

  template <class Count>
  inline Floats operator()(int i, Count count) const {
    return mul(activate<Activation>(load(gate + i, count)), load(up + i, count));
  }
};

// Writes the products; returns the quantization parameters of the row.
template <int Activation>
inline Quantization gated_range(const GatedRow<Activation> &product, int width, float *products,
                                float *scale, int32_t *zero_point) {
  Floats low = set(0.0f), high = set(0.0f);
  by_16(width, [&](int i, auto count) {
    const Floats values = product(i, count);
    store(products + i, values, count);
    low = min(keep(count, values, low), low);
    high = max(keep(count, values, high), high);
  });
  return affine_quantization(smallest(low), largest(high), scale, zero_point);
}

template <int Activation>
inline void gated_to_bytes(const GatedRow<Activation> &product, int width,
                           const Quantization &quantization, uint8_t *target) {
  const int pairs = width / 32 * 32;
  for (int i = 0; i < pairs; i += 32)
    quantization.store(target + i, product(i, Whole()), product(i + 16, Whole()));
  by_16(width - pairs, [&](int i, auto count) {
    store_bytes(target + pairs + i, quantization(product(pairs + i, count)), count);
  });
}

template <int Activation>
void gated_rows(const oi8_gated &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  const int32_t *outputs = instruction.head.output;
  const int width = instruction.columns;
  const bool bytes = outputs[OI8_GATED_BYTES] >= 0, dynamic = outputs[OI8_GATED_SCALES] >= 0;
  const Quantization fixed(bytes && !dynamic ? instruction.output_scale : 1.0f,
                           instruction.output_zero_point);
  float *temporary = reinterpret_cast<float *>(context.scratch);
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const GatedRow<Activation> product = {
        context.row<float>(instruction.head.input[OI8_GATED_GATE], row) + instruction.column[0],
        context.row<float>(instruction.head.input[OI8_GATED_UP], row) + instruction.column[1]};
    if (!bytes) {
      float *target = context.row<float>(outputs[OI8_GATED_RESULT], row);
      by_16(width, [&](int i, auto count) { store(target + i, product(i, count), count); });
      continue;
    }
    uint8_t *target = context.row<uint8_t>(outputs[OI8_GATED_BYTES], row);
    if (dynamic)
      quantize_row(
          temporary, target, width,
          gated_range(product, width, temporary, context.row<float>(outputs[OI8_GATED_SCALES], row),
                      context.row<int32_t>(outputs[OI8_GATED_ZERO_POINTS], row)));
    else
      gated_to_bytes(product, width, fixed, target);
  }
}

inline void gated(const oi8_gated &instruction, const Context &context) {
  switch (instruction.activation) {
    case OI8_RELU: return gated_rows<OI8_RELU>(instruction, context);
    case OI8_GELU: return gated_rows<OI8_GELU>(instruction, context);
    case OI8_GELU_TANH: return gated_rows<OI8_GELU_TANH>(instruction, context);
    case OI8_SILU: return gated_rows<OI8_SILU>(instruction, context);
    case OI8_TANH: return gated_rows<OI8_TANH>(instruction, context);
    default: return gated_rows<OI8_NONE>(instruction, context);
  }
}

}  // namespace OI8_NAMESPACE
