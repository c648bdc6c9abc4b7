// The integer tile in plain C++. Contract in rows.h.
#pragma once
#include <cstdint>

#include "../layout.h"
#include "rows.h"

namespace OI8_NAMESPACE {

struct Tile : PlainRows {
  static constexpr int rows = 32;
  static void enter() {}
  static void leave() {}

  template <class Between>
  static void block(const Rows &inputs, int rows, const int8_t *panel, int steps, int32_t *sums_out,
                    int64_t ldc, Prefetch &, Between &&between) {
    for (int row = 0; row < rows; row++)
      for (int half = 0; half < 2; half++) {
        int32_t sums[16] = {0};
        for (int step = 0; step < steps; step++)
          for (int group = 0; group < 16; group++) {
            const uint8_t *values =
                inputs.first + row * inputs.lda + step * step_inputs + group * group_inputs;
            const int8_t *weights = panel + half_at(step, half) + group * group_bytes;
            for (int channel = 0; channel < 16; channel++)
              sums[channel] +=
                  values[0] * weights[channel * 4] + values[1] * weights[channel * 4 + 1] +
                  values[2] * weights[channel * 4 + 2] + values[3] * weights[channel * 4 + 3];
          }
        for (int channel = 0; channel < 16; channel++)
          sums_out[row * ldc + half * 16 + channel] = sums[channel];
      }
    for (int step = 0; step < steps; step++) between(step);
  }
};

}  // namespace OI8_NAMESPACE
