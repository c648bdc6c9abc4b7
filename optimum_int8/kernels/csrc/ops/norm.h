// NORM: layer norm or RMS norm of rows (or of the sum of two) to float32, to uint8 with a given
// scale and zero point, or to uint8 with one of each row.
//
// Accumulator and rounding: float32, sums in the 16-lane order of numerics, one rounding per
// operation. Any width and number of rows; nothing needs alignment. Each thread owns a share of the
// rows and a row of scratch.
#pragma once
#include "../layout.h"
#include "quantize.h"

namespace OI8_NAMESPACE {

// v -> (v - mean) * factor * weight + bias. Without a norm the mean is 0 and the factor 1, which
// change no bit.
struct RowNorm {
  Floats mean, factor;
  const float *weight, *bias;

  template <class Count>
  inline Floats operator()(const float *sums, int i, Count count) const {
    Floats values = mul(sub(load(sums + i, count), mean), factor);
    if (weight) values = mul(values, load(weight + i, count));
    if (bias) values = add(values, load(bias + i, count));
    return values;
  }
};

// What is normalised: `columns` values, and how.
struct NormShape {
  int columns, kind;
  float epsilon;
  const float *weight, *bias;
};

// Of values whose lanes add up to `total`.
inline RowNorm row_norm(const NormShape &shape, const float *sums, Floats total) {
  if (shape.kind == OI8_NO_NORM) return {set(0.0f), set(1.0f), nullptr, nullptr};
  const float width = 1.0f / static_cast<float>(shape.columns);
  const Floats mean = set(shape.kind == OI8_LAYER_NORM ? sum(total) * width : 0.0f);
  Floats squares = set(0.0f);
  by_16(shape.columns, [&](int i, auto count) {
    const Floats values = sub(load(sums + i, count), mean);
    squares = add(squares, keep(count, mul(values, values), set(0.0f)));
  });
  return {mean, set(1.0f / __builtin_sqrtf(sum(squares) * width + shape.epsilon)), shape.weight,
          shape.bias};
}

inline int64_t norm_scratch(const oi8_norm &instruction, const oi8_call &) {
  return (int64_t(instruction.columns) + half_columns) * 4;  // a row that has no place in a result
}

inline void norm(const oi8_norm &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  const int width = instruction.columns, pairs = width / 32 * 32;
  const bool floats = instruction.head.output[OI8_NORM_RESULT] >= 0,
             bytes = instruction.head.output[OI8_NORM_BYTES] >= 0,
             dynamic = instruction.head.output[OI8_NORM_SCALES] >= 0;
  const Quantization fixed(instruction.output_scale > 0 ? instruction.output_scale : 1.0f,
                           instruction.output_zero_point);
  const NormShape shape = {width, instruction.kind, instruction.epsilon, instruction.weight,
                           instruction.bias};
  float *temporary = reinterpret_cast<float *>(context.scratch);
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const float *source = context.row<float>(instruction.head.input[OI8_NORM_FLOATS], row);
    const float *residual = instruction.head.input[OI8_NORM_RESIDUAL] >= 0
                                ? context.row<float>(instruction.head.input[OI8_NORM_RESIDUAL], row)
                                : nullptr;
    float *sums =
        floats ? context.row<float>(instruction.head.output[OI8_NORM_RESULT], row) : temporary;
    Floats total = set(0.0f);
    by_16(width, [&](int i, auto count) {
      Floats values = load(source + i, count);
      if (residual) values = add(values, load(residual + i, count));
      store(sums + i, values, count);
      total = add(total, values);
    });
    const RowNorm normalise = row_norm(shape, sums, total);
    uint8_t *bytes_out =
        bytes ? context.row<uint8_t>(instruction.head.output[OI8_NORM_BYTES], row) : nullptr;
    if (!dynamic) {
      for (int i = 0; i < pairs; i += 32) {
        const Floats values = normalise(sums, i, Whole()), more = normalise(sums, i + 16, Whole());
        if (floats) store(sums + i, values), store(sums + i + 16, more);
        if (bytes) fixed.store(bytes_out + i, values, more);
      }
      by_16(width - pairs, [&](int i, auto count) {
        const Floats values = normalise(sums, pairs + i, count);
        if (floats) store(sums + pairs + i, values, count);
        if (bytes) store_bytes(bytes_out + pairs + i, fixed(values), count);
      });
      continue;
    }
    Floats low = set(0.0f), high = set(0.0f);
    by_16(width, [&](int i, auto count) {
      const Floats values = normalise(sums, i, count);
      store(sums + i, values, count);
      low = min(keep(count, values, low), low), high = max(keep(count, values, high), high);
    });
    quantize_row(sums, bytes_out, width,
                 affine_quantization(
                     smallest(low), largest(high),
                     context.row<float>(instruction.head.output[OI8_NORM_SCALES], row),
                     context.row<int32_t>(instruction.head.output[OI8_NORM_ZERO_POINTS], row)));
  }
}

}  // namespace OI8_NAMESPACE
