// QUANTIZE: float32 rows to uint8, with a given scale and zero point or with one of each row and
// group.
//
// Rounding: times the float32 reciprocal of the scale, half to even (numerics.quantize_affine). Any
// width and number of rows; nothing needs alignment. Each thread owns a share of the rows, or of
// the values where rows follow one another without padding.
#pragma once
#include "context.h"
#include "math.h"

namespace OI8_NAMESPACE {

inline void quantize_row(const float *source, uint8_t *target, int width,
                         const Quantization &quantization) {
  int i = 0;
  for (; i + 32 <= width; i += 32)
    quantization.store(target + i, load(source + i), load(source + i + 16));
  by_16(width - i, [&](int rest, auto count) {
    store_bytes(target + i + rest, quantization(load(source + i + rest, count)), count);
  });
}

// The quantization parameters of numerics.affine_qparams; writes scale and zero point.
inline Quantization affine_quantization(float bottom, float top, float *scale,
                                        int32_t *zero_point) {
  float wanted_scale = (top - bottom) * (1.0f / 255.0f);
  wanted_scale = wanted_scale > 0x1p-126f ? wanted_scale : 0x1p-126f;
  float wanted_zero = (0.0f - bottom) * (1.0f / wanted_scale);
  wanted_zero = wanted_zero > 0.0f ? (wanted_zero < 255.0f ? wanted_zero : 255.0f) : 0.0f;
  *scale = wanted_scale;
  *zero_point = static_cast<int32_t>(__builtin_rintf(wanted_zero));
  return Quantization(wanted_scale, *zero_point);
}

inline Quantization affine_quantization(const float *source, int width, float *scale,
                                        int32_t *zero_point) {
  Floats low = set(0.0f), high = set(0.0f);
  by_16(width, [&](int i, auto count) {
    const Floats values = load(source + i, count);  // absent lanes are 0, which every range holds
    low = min(values, low);
    high = max(values, high);
  });
  return affine_quantization(smallest(low), largest(high), scale, zero_point);
}

inline Quantization symmetric_quantization(const float *source, int width, float *scale) {
  Floats high = set(0.0f);
  by_16(width, [&](int i, auto count) { high = max(absolute(load(source + i, count)), high); });
  float wanted_scale = largest(high) / 127.0f;
  *scale = wanted_scale = wanted_scale > 0x1p-126f ? wanted_scale : 0x1p-126f;
  return Quantization(wanted_scale, 128);
}

// A row of `groups` pieces of `width`, each with a scale of its own; symmetric where there is no
// place for zero points.
inline void quantize_groups(const float *source, uint8_t *target, int width, int groups,
                            float *scales, int32_t *zero_points) {
  for (int group = 0; group < groups; group++, source += width, target += width)
    quantize_row(source, target, width,
                 zero_points
                     ? affine_quantization(source, width, scales + group, zero_points + group)
                     : symmetric_quantization(source, width, scales + group));
}

inline void quantize(const oi8_quantize &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  const bool dynamic = instruction.head.output[OI8_QUANTIZE_SCALES] >= 0,
             symmetric = instruction.head.output[OI8_QUANTIZE_ZERO_POINTS] < 0;
  const Quantization fixed(dynamic ? 1.0f : instruction.output_scale,
                           instruction.output_zero_point);
  const int width = dynamic ? instruction.columns / instruction.groups : instruction.columns;
  if (!dynamic && context.program->spatial &&
      context.row_bytes(instruction.head.input[OI8_QUANTIZE_FLOATS]) == width * 4 &&
      context.row_bytes(instruction.head.output[OI8_QUANTIZE_BYTES]) == width) {
    // pixels may have very few channels
    quantize_row(context.row<float>(instruction.head.input[OI8_QUANTIZE_FLOATS], mine.begin),
                 context.row<uint8_t>(instruction.head.output[OI8_QUANTIZE_BYTES], mine.begin),
                 static_cast<int>(mine.end - mine.begin) * width, fixed);
    return;
  }
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const float *source =
        context.row<float>(instruction.head.input[OI8_QUANTIZE_FLOATS], row) + instruction.column;
    uint8_t *target = context.row<uint8_t>(instruction.head.output[OI8_QUANTIZE_BYTES], row);
    if (!dynamic) {
      quantize_row(source, target, width, fixed);
      continue;
    }
    float *scale = context.row<float>(instruction.head.output[OI8_QUANTIZE_SCALES], row);
    quantize_groups(
        source, target, width, instruction.groups, scale,
        symmetric ? nullptr
                  : context.row<int32_t>(instruction.head.output[OI8_QUANTIZE_ZERO_POINTS], row));
  }
}

}  // namespace OI8_NAMESPACE
