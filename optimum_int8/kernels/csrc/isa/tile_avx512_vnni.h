// The integer tile with vpdpbusd (exact: it does not saturate between the four products). Contract in tile_amx.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "rows.h"

namespace OI8_NAMESPACE {

struct Tile : RowsAsTheyLie {
  // As many as have their sums in registers: what is to do with them follows at once, while they are in L1.
  static constexpr int rows = 8;
  static constexpr bool takes_runs = true, winograd = true;
  static constexpr WinogradCosts winograd_costs = {5, 36, 450, 250, 20};  // cycles of a Zen 4, fitted to the layers of a ResNet-50

  // Each row is runs of 16 bytes times `fours`, `distance` apart.
  struct Rows {
    const uint8_t *a;
    int64_t lda;
    const int32_t *offsets;  // of rows from `a`, in place of lda
    int64_t distance;
    int runs, fours;
  };
  static void enter() {}
  static void leave() {}
  static int pauses(int) { return 1; }

  // Padding is zero in one of the factors.
  static Rows prepare(const uint8_t *a, int64_t lda, int, int columns, char *, const void * = nullptr) { return {a, lda, nullptr, 0, 1, (columns + 15) / 16}; }
  static Rows runs(const uint8_t *a, const int32_t *offsets, int runs, int64_t distance, int64_t bytes) { return {a, 0, offsets, distance, runs, static_cast<int>(bytes / 16)}; }

  template <class Between>
  static inline void block(const Rows &x, int count, const int8_t *panel, int, int32_t *c, int64_t ldc, Ahead &ahead, Between &&between) {
    if (ahead.lines) some_rows<true, rows>(x, panel, c, ldc, ahead, count);
    else some_rows<false, rows>(x, panel, c, ldc, ahead, count);
    between(0);
  }

 private:
  template <bool Fetch, int R>
  static inline __attribute__((always_inline)) void some_rows(const Rows &x, const int8_t *panel, int32_t *c, int64_t ldc, Ahead &ahead, int count) {
    if (count == R)
      product<Fetch>(x, panel, c, ldc, ahead, std::make_integer_sequence<int, R>());
    else if constexpr (R > 1)
      some_rows<Fetch, R - 1>(x, panel, c, ldc, ahead, count);
  }

  // Folds, because gcc keeps an array in registers only if its indices are constants from the start. `Fetch`: short products can do without what
  // prefetching nothing costs.
  template <bool Fetch, int... r>
  static __attribute__((noinline)) void product(const Rows &x, const int8_t *panel, int32_t *c, int64_t ldc, Ahead &ahead, std::integer_sequence<int, r...>) {
    // one row alone would wait for its own sums: odd groups of columns have sums of their own
    constexpr int R = sizeof...(r), sides = R == 1 ? 2 : 1;
    const uint8_t *const row[R] = {x.a + (x.offsets ? x.offsets[r] : r * x.lda)...};
    __m512i acc[sides][R][2];
    for (int i = 0; i < sides; i++) ((acc[i][r][0] = acc[i][r][1] = _mm512_setzero_si512()), ...);
    const auto four = [&](int64_t &at, const int8_t *b) __attribute__((always_inline)) {
      __asm__("" : "+r"(at));  // else gcc gives each row a pointer that moves, for which there are no registers
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++, b += 64) {
        const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 1024);
        (multiply_add(acc[g % sides][r], row[r] + at + g * 4, b0, b1), ...);
      }
      at += 16;
    };
    if (x.fours % 4 == 0) {
      for (int i = 0; i < x.runs; i++) {
        int64_t at = i * x.distance;
        for (int s = x.fours; s > 0; s -= 4, panel += 2048) {
          if (Fetch) ahead.fetch(ahead.lines);
#pragma GCC unroll 4
          for (int q = 0; q < 4; q++) four(at, panel + q * 256);
        }
      }
    } else {  // a run ends within a step
      int quarter = 0;
      for (int i = 0; i < x.runs; i++) {
        int64_t at = i * x.distance;
        for (int q = 0; q < x.fours; q++, quarter++) {
          if (Fetch && quarter % 4 == 0) ahead.fetch(ahead.lines);
          four(at, panel + quarter / 4 * 2048 + quarter % 4 * 256);
        }
      }
    }
    if constexpr (sides == 2)
      for (int h = 0; h < 2; h++) acc[0][0][h] = _mm512_add_epi32(acc[0][0][h], acc[1][0][h]);
    ((_mm512_storeu_si512(c + r * ldc, acc[0][r][0]), _mm512_storeu_si512(c + r * ldc + 16, acc[0][r][1])), ...);
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
