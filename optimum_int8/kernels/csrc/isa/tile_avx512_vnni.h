// The integer tile with vpdpbusd (exact: it does not saturate between the four products). Contract in tile_amx.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "rows.h"

namespace OI8_NAMESPACE {

struct Tile : RowsAsTheyLie {
  static constexpr int rows = 32;
  struct Rows {
    const uint8_t *a;
    int64_t lda;
    int groups;  // of four columns that hold something
  };
  static void enter() {}
  static void leave() {}
  static Rows prepare(const uint8_t *a, int64_t lda, int, int columns, char *, const void * = nullptr) { return {a, lda, (columns + 3) / 4}; }

  // Other work goes between the rows whose sums stay in registers: what the processor finds ready of it runs beside the products.
  static constexpr int most_rows = 8;
  static int pauses(int rows, int) { return (rows + most_rows - 1) / most_rows; }

  template <class Between>
  static inline void block(const Rows &x, int count, const int8_t *panel, int steps, int32_t *c, int64_t ldc, Ahead &ahead, Between &&between) {
    const int parts = pauses(count, steps), lines = ahead.share(parts);
    for (int p = 0, from = 0; p < parts; p++) {
      const int to = count * (p + 1) / parts;  // much the same for each: a single row would wait for its sums, not for the units that multiply
      some_rows<most_rows>(x.a + from * x.lda, x.lda, x.groups, panel, c + from * ldc, ldc, ahead, lines, to - from);
      from = to;
      between(p);
    }
  }

 private:
  template <int R>
  static inline void some_rows(const uint8_t *a, int64_t lda, int groups, const int8_t *panel, int32_t *c, int64_t ldc, Ahead &ahead, int lines, int count) {
    if (count == R)
      some_rows(a, lda, groups, panel, c, ldc, ahead, lines, std::make_integer_sequence<int, R>());
    else if constexpr (R > 1)
      some_rows<R - 1>(a, lda, groups, panel, c, ldc, ahead, lines, count);
  }

  // Folds, because gcc keeps an array in registers only if its indices are constants from the start.
  template <int... r>
  static inline void some_rows(const uint8_t *a, int64_t lda, int groups, const int8_t *panel, int32_t *c, int64_t ldc, Ahead &ahead, int lines, std::integer_sequence<int, r...>) {
    __m512i acc[sizeof...(r)][2];
    ((acc[r][0] = acc[r][1] = _mm512_setzero_si512()), ...);
    for (; groups > 0; groups -= 16, a += 64, panel += 2048) {
      ahead.fetch(lines);
      const int fours = groups < 16 ? (groups + 3) / 4 : 4;  // padding is zero in one of the factors
      for (int i = 0; i < fours; i++)
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) {
          const int8_t *b = panel + i * 256 + g * 64;
          const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 1024);
          (multiply_add(acc[r], a + r * lda + i * 16 + g * 4, b0, b1), ...);
        }
    }
    ((_mm512_storeu_si512(c + r * ldc, acc[r][0]), _mm512_storeu_si512(c + r * ldc + 16, acc[r][1])), ...);
  }

  static inline __attribute__((always_inline)) void multiply_add(__m512i (&sums)[2], const uint8_t *four, __m512i b0, __m512i b1) {
    int32_t columns;
    std::memcpy(&columns, four, 4);
    const __m512i x = _mm512_set1_epi32(columns);
    sums[0] = _mm512_dpbusd_epi32(sums[0], x, b0);
    sums[1] = _mm512_dpbusd_epi32(sums[1], x, b1);
  }
};

}  // namespace OI8_NAMESPACE
