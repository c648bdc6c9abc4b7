// QUANTIZE: float32 rows to uint8, on a given grid or on one grid per row and group.
// Rows are divided among threads; any width.
#pragma once

namespace OI8_NAMESPACE {

inline void quantize_row(const float *source, uint8_t *target, int count,
                         const Quantization &grid) {
  int i = 0;
  for (; i + 32 <= count; i += 32) grid.store(target + i, load(source + i), load(source + i + 16));
  by_16(count - i, [&](int rest, auto count) {
    store_bytes(target + i + rest, grid(load(source + i + rest, count)), count);
  });
}

// The grid of numerics.affine_qparams; writes scale and zero point.
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

inline Quantization affine_quantization(const float *source, int count, float *scale,
                                        int32_t *zero_point) {
  Floats low = set(0.0f), high = set(0.0f);
  by_16(count, [&](int i, auto count) {
    const Floats values = load(source + i, count);  // absent lanes are 0, which every range holds
    low = min(values, low);
    high = max(values, high);
  });
  return affine_quantization(smallest(low), largest(high), scale, zero_point);
}

inline Quantization symmetric_quantization(const float *source, int count, float *scale) {
  Floats high = set(0.0f);
  by_16(count, [&](int i, auto count) { high = max(absolute(load(source + i, count)), high); });
  float wanted_scale = largest(high) / 127.0f;
  *scale = wanted_scale = wanted_scale > 0x1p-126f ? wanted_scale : 0x1p-126f;
  return Quantization(wanted_scale, 128);
}

inline void quantize(const oi8_instruction &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction));
  const bool dynamic = instruction.output[1] >= 0, symmetric = instruction.output[2] < 0;
  const Quantization fixed(dynamic ? 1.0f : instruction.output_scale,
                           instruction.output_zero_point);
  const int width = dynamic ? instruction.columns / instruction.groups : instruction.columns;
  if (!dynamic && context.program->spatial &&
      context.row_bytes(instruction.input[0]) == width * 4 &&
      context.row_bytes(instruction.output[0]) == width) {
    // pixels may have very few channels
    quantize_row(context.row<float>(instruction.input[0], mine.begin),
                 context.row<uint8_t>(instruction.output[0], mine.begin),
                 static_cast<int>(mine.end - mine.begin) * width, fixed);
    return;
  }
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const float *source = context.row<float>(instruction.input[0], row);
    uint8_t *target = context.row<uint8_t>(instruction.output[0], row);
    if (!dynamic) {
      quantize_row(source, target, width, fixed);
      continue;
    }
    float *scale = context.row<float>(instruction.output[1], row);
    for (int group = 0; group < instruction.groups; group++, source += width, target += width) {
      int32_t *zero =
          symmetric ? nullptr : context.row<int32_t>(instruction.output[2], row) + group;
      quantize_row(source, target, width,
                   symmetric ? symmetric_quantization(source, width, scale + group)
                             : affine_quantization(source, width, scale + group, zero));
    }
  }
}

}  // namespace OI8_NAMESPACE
