// APPEND_INT8: rows of keys or values of this call's tokens, from element `column` of their rows
// on, to uint8 behind those that there are already.
//
// Rounding: that of QUANTIZE (symmetric, zero point 128), with a given scale or with one of each
// row and group. Any width and number of rows; nothing needs alignment. A sequence has room for
// `rows` rows and then holds as many as there are keys; no other row is written. Each thread
// owns a share of the rows.
#pragma once
#include "quantize.h"

namespace OI8_NAMESPACE {

inline void append_int8(const oi8_append_int8 &instruction, const Context &context) {
  const oi8_call &call = *context.call;
  const bool dynamic = instruction.head.output[OI8_APPEND_INT8_SCALES] >= 0;
  const Quantization fixed(dynamic ? 1.0f : instruction.output_scale, 128);
  const int width = dynamic ? instruction.columns / instruction.groups : instruction.columns;
  const oi8_keys &keys = context.keys(instruction.head);
  const int64_t earlier = keys.length - call.length, between = keys.rows ? keys.rows : keys.length;
  const Range mine = context.share(context.batch * call.length);
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const int64_t kept = row / call.length * between + earlier + row % call.length;
    const float *source =
        context.row<float>(instruction.head.input[OI8_APPEND_INT8_ROWS], row) + instruction.column;
    uint8_t *target = context.row<uint8_t>(instruction.head.output[OI8_APPEND_INT8_BYTES], kept);
    if (!dynamic) {
      quantize_row(source, target, width, fixed);
      continue;
    }
    float *scale = context.row<float>(instruction.head.output[OI8_APPEND_INT8_SCALES], kept);
    quantize_groups(source, target, width, instruction.groups, scale, nullptr);
  }
}

}  // namespace OI8_NAMESPACE
