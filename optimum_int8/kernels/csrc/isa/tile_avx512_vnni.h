// The integer tile with vpdpbusd (exact: it does not saturate between the four products). Contract
// in rows.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "../layout.h"
#include "rows.h"

namespace OI8_NAMESPACE {

struct Tile : PlainRows {
  // As many as have their sums in registers: what is to do with them follows at once, while they
  // are in L1.
  static constexpr int rows = 8;
  static constexpr bool takes_spans = true, winograd = true;
  static constexpr WinogradCosts winograd_costs = {
      5, 36, 450, 250, 20};  // cycles of a Zen 4, fitted to the layers of a ResNet-50

  // Each row is spans of 16 bytes times `quarters`, `distance` apart.
  struct Rows {
    const uint8_t *first;
    int64_t lda;
    const int32_t *offsets;  // of rows from `a`, in place of lda
    int64_t distance;
    int spans, quarters;
  };
  static void enter() {}
  static void leave() {}
  static int pauses(int) { return 1; }

  // Padding is zero in one of the factors.
  static Rows prepare(const uint8_t *inputs, int64_t lda, int, int columns, char *,
                      const void * = nullptr) {
    return {inputs, lda, nullptr, 0, 1, (columns + 15) / 16};
  }
  static Rows spans(const uint8_t *inputs, const int32_t *offsets, int spans, int64_t distance,
                    int64_t bytes) {
    return {inputs, 0, offsets, distance, spans, static_cast<int>(bytes / 16)};
  }

  template <class Between>
  static inline void block(const Rows &inputs, int count, const int8_t *panel, int, int32_t *sums,
                           int64_t ldc, Prefetch &prefetch, Between &&between) {
    if (prefetch.lines)
      some_rows<true, rows>(inputs, panel, sums, ldc, prefetch, count);
    else
      some_rows<false, rows>(inputs, panel, sums, ldc, prefetch, count);
    between(0);
  }

 private:
  template <bool Fetch, int RowCount>
  static inline __attribute__((always_inline)) void some_rows(const Rows &inputs,
                                                              const int8_t *panel, int32_t *sums,
                                                              int64_t ldc, Prefetch &prefetch,
                                                              int count) {
    if (count == RowCount)
      product<Fetch>(inputs, panel, sums, ldc, prefetch,
                     std::make_integer_sequence<int, RowCount>());
    else if constexpr (RowCount > 1)
      some_rows<Fetch, RowCount - 1>(inputs, panel, sums, ldc, prefetch, count);
  }

  // Folds, because gcc keeps an array in registers only if its indices are constants from the
  // start. `Fetch`: short products can do without what prefetching nothing costs.
  template <bool Fetch, int... index>
  static __attribute__((noinline)) void product(const Rows &inputs, const int8_t *panel,
                                                int32_t *sums, int64_t ldc, Prefetch &prefetch,
                                                std::integer_sequence<int, index...>) {
    // one row alone would wait for its own sums: odd groups of columns have sums of their own
    constexpr int RowCount = sizeof...(index), sides = RowCount == 1 ? 2 : 1;
    const uint8_t *const row[RowCount] = {
        inputs.first + (inputs.offsets ? inputs.offsets[index] : index * inputs.lda)...};
    __m512i acc[sides][RowCount][2];
    for (int i = 0; i < sides; i++)
      ((acc[i][index][0] = acc[i][index][1] = _mm512_setzero_si512()), ...);
    const auto four = [&](int64_t &offset, const int8_t *weights) __attribute__((always_inline)) {
      __asm__(""
              : "+r"(offset));  // else gcc gives each row a pointer that moves, for which there are
                                // no registers
#pragma GCC unroll 4
      for (int group = 0; group < 4; group++, weights += 64) {
        const __m512i low_weights = _mm512_loadu_si512(weights),
                      high_weights = _mm512_loadu_si512(weights + half_bytes);
        (multiply_add(acc[group % sides][index], row[index] + offset + group * 4, low_weights,
                      high_weights),
         ...);
      }
      offset += 16;
    };
    if (inputs.quarters % 4 == 0) {
      for (int i = 0; i < inputs.spans; i++) {
        int64_t offset = i * inputs.distance;
        for (int step = inputs.quarters; step > 0; step -= 4, panel += step_bytes) {
          if (Fetch) prefetch.fetch(prefetch.lines);
#pragma GCC unroll 4
          for (int quarter_step = 0; quarter_step < 4; quarter_step++)
            four(offset, panel + quarter_step * 256);
        }
      }
    } else {  // a run ends within a step
      int quarter = 0;
      for (int i = 0; i < inputs.spans; i++) {
        int64_t offset = i * inputs.distance;
        for (int quarter_step = 0; quarter_step < inputs.quarters; quarter_step++, quarter++) {
          if (Fetch && quarter % 4 == 0) prefetch.fetch(prefetch.lines);
          four(offset, panel + quarter / 4 * step_bytes + quarter % 4 * (half_bytes / 4));
        }
      }
    }
    if constexpr (sides == 2)
      for (int half = 0; half < 2; half++)
        acc[0][0][half] = _mm512_add_epi32(acc[0][0][half], acc[1][0][half]);
    ((_mm512_storeu_si512(sums + index * ldc, acc[0][index][0]),
      _mm512_storeu_si512(sums + index * ldc + 16, acc[0][index][1])),
     ...);
  }

  static inline __attribute__((always_inline)) void multiply_add(__m512i (&sums)[2],
                                                                 const uint8_t *four,
                                                                 __m512i low_weights,
                                                                 __m512i high_weights) {
    int32_t columns;
    std::memcpy(&columns, four, 4);
    const __m512i inputs = _mm512_set1_epi32(columns);
    sums[0] = _mm512_dpbusd_epi32(sums[0], inputs, low_weights);
    sums[1] = _mm512_dpbusd_epi32(sums[1], inputs, high_weights);
  }
};

}  // namespace OI8_NAMESPACE
