// The integer tile in plain C++. Contract in tile_amx.h.
#pragma once
#include <cstdint>

#include "rows.h"

namespace OI8_NAMESPACE {

struct Tile : RowsAsTheyLie {
  static constexpr int rows = 32;
  static void enter() {}
  static void leave() {}

  template <class Between>
  static void block(const Rows &a, int rows, const int8_t *panel, int steps, int32_t *c, int64_t ldc, Ahead &, Between &&between) {
    for (int r = 0; r < rows; r++)
      for (int h = 0; h < 2; h++) {
        int32_t sums[16] = {0};
        for (int s = 0; s < steps; s++)
          for (int g = 0; g < 16; g++) {
            const uint8_t *x = a.a + r * a.lda + s * 64 + g * 4;
            const int8_t *w = panel + s * 2048 + h * 1024 + g * 64;
            for (int n = 0; n < 16; n++) sums[n] += x[0] * w[n * 4] + x[1] * w[n * 4 + 1] + x[2] * w[n * 4 + 2] + x[3] * w[n * 4 + 3];
          }
        for (int n = 0; n < 16; n++) c[r * ldc + h * 16 + n] = sums[n];
      }
    for (int s = 0; s < steps; s++) between(s);
  }
};

}  // namespace OI8_NAMESPACE
