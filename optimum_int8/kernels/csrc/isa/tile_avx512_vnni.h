// The integer tile with vpdpbusd (exact: it does not saturate between the four products). Contract in tile_amx.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "rows.h"

namespace OI8_NAMESPACE {

struct Tile : RowsAsTheyLie {
  static constexpr int rows = 32;
  static void enter() {}
  static void leave() {}

  template <int R>
  static inline void some_rows(const uint8_t *a, int64_t lda, const int8_t *panel, int steps, int32_t *c, int64_t ldc, Ahead &ahead, int lines) {
    __m512i acc[R][2];
    for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm512_setzero_si512();
    for (int s = 0; s < steps; s++, panel += 2048) {
      ahead.fetch(lines);
      for (int g = 0; g < 16; g++) {
        const __m512i b0 = _mm512_loadu_si512(panel + g * 64), b1 = _mm512_loadu_si512(panel + 1024 + g * 64);
        for (int r = 0; r < R; r++) {
          int32_t four;
          std::memcpy(&four, a + r * lda + s * 64 + g * 4, 4);
          const __m512i x = _mm512_set1_epi32(four);
          acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], x, b0);
          acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], x, b1);
        }
      }
    }
    for (int r = 0; r < R; r++) {
      _mm512_storeu_si512(c + r * ldc, acc[r][0]);
      _mm512_storeu_si512(c + r * ldc + 16, acc[r][1]);
    }
  }

  template <class Between>
  static inline void block(const Rows &x, int rows, const int8_t *panel, int steps, int32_t *c, int64_t ldc, Ahead &ahead, Between &&between) {
    const uint8_t *a = x.a;
    const int64_t lda = x.lda;
    const int lines = ahead.share(rows / 8 + rows % 8 / 4 + rows % 4);
    int r = 0;
    for (; r + 8 <= rows; r += 8) some_rows<8>(a + r * lda, lda, panel, steps, c + r * ldc, ldc, ahead, lines);
    for (; r + 4 <= rows; r += 4) some_rows<4>(a + r * lda, lda, panel, steps, c + r * ldc, ldc, ahead, lines);
    for (; r < rows; r++) some_rows<1>(a + r * lda, lda, panel, steps, c + r * ldc, ldc, ahead, lines);
    for (int s = 0; s < steps; s++) between(s);
  }
};

}  // namespace OI8_NAMESPACE
