// The integer tile on AVX2: vpmaddubsw, made exact in two ways. Contract in rows.h; sums are those
// of A - 128 (`offset`).
//
// vpmaddubsw multiplies unsigned by signed bytes and adds pairs in int16, where 255 * 127 * 2
// saturates.
//
// Clamped weights (clamped_avx2.h), where they were prepared and enough rows share the cost of the
// residual weights: A enters as it is, four rows interleaved, since its groups of inputs are read
// in the order of each half of a panel.
//
// Sign-magnitude path, for any weights: A minus 128 enters as its magnitude, at most 128, while the
// weight takes its sign: of 128 * 128 * 2 only -32768 is reached, which int16 holds. The sign is
// applied by inverting bits, -w - 1, one operation on any port; the magnitudes of a row's negative
// values, added to its sums, make up for the ones. Rows are rewritten once for all panels
// (`prepare`).
//
// Of the last step only the groups of four that hold something are multiplied.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../layout.h"
#include "clamped_avx2.h"
#include "rows.h"

namespace OI8_NAMESPACE {

struct Tile {
  static constexpr int rows = 32;
  static constexpr bool winograd = true, takes_spans = false;
  // Vector instructions. Direct: 2.5 for 32 products, a seventh more for the residual weights, and
  // a quarter less of all, as one long product keeps the ports busier than a mixture.
  static constexpr WinogradCosts winograd_costs = {20.8, 144, 920, 300, 18};
  static constexpr int32_t offset = 128;

  // For clamped weights rows four by four and transposed. Otherwise these are null, and of each
  // row: what its sums begin with, then for each step 64 magnitudes and 64 signs (0 or -1).
  struct Rows {
    const uint8_t *interleaved, *transposed;
    const int32_t *start;
    const uint8_t *steps;
    int groups;
  };
  struct Panel {
    const int8_t *bytes;
    const PanelResidual *residual;  // null: as packed
    const uint16_t *order;
    const char *end;
  };

  static void enter() {}
  static void leave() {}

  static int pauses(int steps) { return steps; }

  // Few rows cost less without the residual weights.
  static const void *prepared_for(const void *prepared, int64_t rows) {
    return rows < 6 ? nullptr : prepared;
  }
  static constexpr bool keeps_rows = false;

  static inline Panel panel(const void *weight, const void *prepared, int64_t index, int steps) {
    const int64_t bytes = int64_t(steps) * step_bytes;
    if (!prepared) {
      const int8_t *packed = static_cast<const int8_t *>(weight) + index * bytes;
      return {packed, nullptr, nullptr, reinterpret_cast<const char *>(packed + bytes)};
    }
    const char *start = static_cast<const char *>(prepared);
    int64_t offsets[2];
    std::memcpy(offsets, start + index * 8, 16);
    const char *const order = start + offsets[0] + bytes;
    return {reinterpret_cast<const int8_t *>(start + offsets[0]),
            reinterpret_cast<const PanelResidual *>(order + order_bytes(steps)),
            reinterpret_cast<const uint16_t *>(order), start + offsets[1]};
  }
  static Span bytes_of(const Panel &panel, int) {
    return {reinterpret_cast<const char *>(panel.bytes),
            panel.end - reinterpret_cast<const char *>(panel.bytes)};
  }

  // not a multiple of 4 KiB, at which stores would meet in one set of the cache
  static constexpr int64_t row_bytes = 128, signed_step_bytes = (rows + 1) * row_bytes;

  static int64_t prepared_bytes(int steps, const void *prepared = nullptr) {
    return prepared ? int64_t(steps) * step_bytes + rows / 4 * four_rows_bytes(steps)
                    : rows * 4 + steps * signed_step_bytes;
  }

  static inline Rows prepare(const uint8_t *inputs, int64_t lda, int count, int columns,
                             char *target, const void *prepared = nullptr) {
    if (!prepared) return sign_magnitude(inputs, lda, count, columns, target);
    uint8_t *const transposed = reinterpret_cast<uint8_t *>(target), *const interleaved =
                                                                         transposed +
                                                                         int64_t(
                                                                             steps_of(columns)) *
                                                                             step_bytes;
    transpose_rows(inputs, lda, count, columns, transposed);
    interleave_rows(inputs, lda, count, columns, interleaved);
    return {interleaved, transposed, nullptr, nullptr, (columns + 3) / 4};
  }

  static inline Rows sign_magnitude(const uint8_t *inputs, int64_t lda, int count, int columns,
                                    char *target) {
    int32_t *start = reinterpret_cast<int32_t *>(target);
    uint8_t *out = reinterpret_cast<uint8_t *>(target + rows * 4);
    const __m256i flip = _mm256_set1_epi8(char(0x80)), zero = _mm256_setzero_si256();
    const int groups = (columns + 3) / 4, whole = groups / 8;
    const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(groups % 8),
                                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (int row = 0; row < count; row++) {
      __m256i negative = zero;
      const auto put = [&](int part, __m256i x) {
        const __m256i centred = _mm256_xor_si256(x, flip);
        uint8_t *place = out + part / 2 * signed_step_bytes + row * row_bytes + part % 2 * 32;
        store(place, _mm256_abs_epi8(centred));
        store(place + 64, _mm256_cmpgt_epi8(zero, centred));
        negative = _mm256_add_epi64(negative, _mm256_sad_epu8(_mm256_subs_epu8(flip, x), zero));
      };
      for (int part = 0; part < whole; part++) put(part, load(inputs + row * lda + part * 32));
      if (groups % 8)
        put(whole, _mm256_blendv_epi8(flip, load(inputs + row * lda + whole * 32), inside));
      const __m128i sum =
          _mm_add_epi64(_mm256_castsi256_si128(negative), _mm256_extracti128_si256(negative, 1));
      start[row] = _mm_cvtsi128_si32(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum)));
    }
    return {nullptr, nullptr, start, out, groups};
  }

  static inline void column_sums(const int8_t *panel, int columns, int32_t *sums) {
    const __m256i ones = _mm256_set1_epi8(1), wide = _mm256_set1_epi16(1);
    __m256i acc[4] = {};
    for (int group = 0; group < (columns + 3) / 4; group++)
      for (int quarter = 0; quarter < 4; quarter++) {
        const __m256i weights =
            load(group_at(panel, group) + quarter / 2 * half_bytes + quarter % 2 * 32);
        acc[quarter] = _mm256_add_epi32(
            acc[quarter], _mm256_madd_epi16(_mm256_maddubs_epi16(ones, weights), wide));
      }
    for (int quarter = 0; quarter < 4; quarter++) store(sums + quarter * 8, acc[quarter]);
  }

  template <class Between>
  static inline void block(const Rows &inputs, int count, const Panel &panel, int steps,
                           int32_t *sums, int64_t ldc, Prefetch &prefetch, Between &&between) {
    if (!inputs.transposed)
      return block(inputs, count, panel.bytes, steps, sums, ldc, prefetch, between);
    if (count > 16)
      begin_sums<true>(panel.residual, inputs.transposed, sums, ldc);
    else
      begin_sums<false>(panel.residual, inputs.transposed, sums, ldc);
    const int lines = prefetch.share((count + 3) / 4 * 2);
    const int8_t *weights = panel.bytes;
    for (int step = 0; step < steps; step += span, weights += span * step_bytes) {
      const int last = step + span < steps ? step + span : steps,
                pairs =
                    ((last * 16 < inputs.groups ? last * 16 : inputs.groups) - step * 16 + 1) / 2;
      for (int row = 0; row < count; row += 4)
        for (int half = 0; half < 2; half++) {
          const uint8_t *rows_of_span =
              inputs.interleaved + row / 4 * four_rows_bytes(steps) + step * 16 * row_group_bytes;
          const uint16_t *order = panel.order + (half * steps + step) * 16;
          int32_t *out = sums + row * ldc + half * 16;
          switch (count - row) {
            case 1:
              some_clamped(rows_of_span, order, pairs, weights + half * half_bytes, out, ldc,
                           prefetch, lines, std::make_integer_sequence<int, 1>());
              break;
            case 2:
              some_clamped(rows_of_span, order, pairs, weights + half * half_bytes, out, ldc,
                           prefetch, lines, std::make_integer_sequence<int, 2>());
              break;
            case 3:
              some_clamped(rows_of_span, order, pairs, weights + half * half_bytes, out, ldc,
                           prefetch, lines, std::make_integer_sequence<int, 3>());
              break;
            default:
              some_clamped(rows_of_span, order, pairs, weights + half * half_bytes, out, ldc,
                           prefetch, lines, std::make_integer_sequence<int, 4>());
          }
        }
      for (int done = step; done < last; done++) between(done);
    }
  }

  template <class Between>
  static inline void block(const Rows &inputs, int count, const int8_t *panel, int steps,
                           int32_t *sums, int64_t ldc, Prefetch &prefetch, Between &&between) {
    for (int step = 0; step < steps; step++, panel += step_bytes) {
      const int groups = inputs.groups - step * 16 < 16 ? inputs.groups - step * 16 : 16;
      for (int half = 0; half < 2; half++) {
        prefetch.fetch(prefetch.share(2));
        all_rows(inputs.steps + step * signed_step_bytes, groups, step ? nullptr : inputs.start,
                 count, panel + half * half_bytes, sums + half * half_columns, ldc);
      }
      between(step);
    }
  }

 private:
  static inline __m256i load(const void *source) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(source));
  }
  static inline void store(void *target, __m256i x) {
    _mm256_storeu_si256(static_cast<__m256i *>(target), x);
  }
  static inline __m256i four(const uint8_t *source) {
    int32_t values;
    std::memcpy(&values, source, 4);
    return _mm256_set1_epi32(values);
  }

  static constexpr int span = pairing_steps;

  // One row of two groups by 16 channels. In assembly, because gcc 12 would copy registers in a
  // loop that is unrolled; 17 are needed, so that the second weights stay in memory.
  static inline void add_pair(__m256i (&sums)[2], __m256i x, __m256i y, __m256i weights0,
                              const int8_t *weights1, __m256i weights2, __m256i weights3,
                              __m256i ones) {
    __m256i left, right;
    // clang-format off: an instruction per line
    __asm__(
        "vpmaddubsw %6, %2, %4\n\t"
        "vpmaddubsw %7, %2, %2\n\t"
        "vpmaddubsw %8, %3, %5\n\t"
        "vpmaddubsw %9, %3, %3\n\t"
        "vpaddw %5, %4, %4\n\t"
        "vpaddw %3, %2, %2\n\t"
        "vpmaddwd %10, %4, %4\n\t"
        "vpmaddwd %10, %2, %2\n\t"
        "vpaddd %4, %0, %0\n\t"
        "vpaddd %2, %1, %1"
        : "+x"(sums[0]), "+x"(sums[1]), "+x"(x), "+x"(y), "=&x"(left), "=&x"(right)
        : "x"(weights0), "m"(*reinterpret_cast<const __m256i_u *>(weights1)), "x"(weights2),
          "x"(weights3), "x"(ones));
    // clang-format on
  }

  // Rows r... by 16 clamped channels; `pairs` of groups of four, which lie 8 to a step.
  template <int... row>
  static inline void some_clamped(const uint8_t *inputs, const uint16_t *order, int pairs,
                                  const int8_t *weights, int32_t *sums, int64_t ldc,
                                  Prefetch &prefetch, int lines,
                                  std::integer_sequence<int, row...>) {
    __m256i acc[sizeof...(row)][2];
    ((acc[row][0] = load(sums + row * ldc), acc[row][1] = load(sums + row * ldc + 8)), ...);
    const __m256i ones = _mm256_set1_epi16(1);
    const auto pair = [&](int pair_index) __attribute__((always_inline)) {
      const uint8_t *one = inputs + order[2 * pair_index],
                    *other = inputs + order[2 * pair_index + 1];
      const int8_t *pair_weights = weights + pair_index * 128;
      const __m256i weights0 = load(pair_weights), weights2 = load(pair_weights + 64),
                    weights3 = load(pair_weights + 96);
      (add_pair(acc[row], four(one + row * 4), four(other + row * 4), weights0, pair_weights + 32,
                weights2, weights3, ones),
       ...);
    };
    for (; pairs >= 8; pairs -= 8, order += 16, weights += step_bytes) {
      prefetch.fetch(lines);
#pragma GCC unroll 8  // what a loop costs is a tenth of the instructions
      for (int pair_index = 0; pair_index < 8; pair_index++) pair(pair_index);
    }
    prefetch.fetch(pairs ? lines : 0);
    for (int pair_index = 0; pair_index < pairs; pair_index++) pair(pair_index);
    ((store(sums + row * ldc, acc[row][0]), store(sums + row * ldc + 8, acc[row][1])), ...);
  }

  static inline void all_rows(const uint8_t *inputs, int groups, const int32_t *start, int count,
                              const int8_t *weights, int32_t *sums, int64_t ldc) {
    int row = 0;
    const auto some = [&](auto sequence, int taken) {
      some_rows(inputs + row * row_bytes, groups, start ? start + row : nullptr, weights,
                sums + row * ldc, ldc, sequence);
      row += taken;
    };
    while (row + 4 <= count && row + 5 != count) some(std::make_integer_sequence<int, 4>(), 4);
    if (row + 3 <= count) some(std::make_integer_sequence<int, 3>(), 3);
    if (row + 2 <= count) some(std::make_integer_sequence<int, 2>(), 2);
    if (row < count) some(std::make_integer_sequence<int, 1>(), 1);
  }

  // In this order: gcc 12 would compute the products of all rows first, and spill them.
  static inline void multiply_add(__m256i &left, __m256i &right, __m256i x, __m256i sign,
                                  __m256i weights0, __m256i weights1, __m256i ones) {
    __m256i other;
    // clang-format off: an instruction per line
    __asm__(
        "vpxor %5, %3, %2\n\t"
        "vpxor %6, %3, %3\n\t"
        "vpmaddubsw %2, %4, %2\n\t"
        "vpmaddubsw %3, %4, %3\n\t"
        "vpmaddwd %7, %2, %2\n\t"
        "vpmaddwd %7, %3, %3\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpaddd %3, %1, %1"
        : "+x"(left), "+x"(right), "=&x"(other), "+x"(sign)
        : "x"(x), "x"(weights0), "x"(weights1), "x"(ones));
    // clang-format on
  }

  // Rows r... by 16 channels over one step. Folds, because gcc keeps an array in registers only if
  // its indices are constants from the start.
  template <int... row>
  static inline void some_rows(const uint8_t *inputs, int groups, const int32_t *start,
                               const int8_t *weights, int32_t *sums, int64_t ldc,
                               std::integer_sequence<int, row...>) {
    __m256i acc[sizeof...(row)][2];
    if (start)
      ((acc[row][0] = acc[row][1] = _mm256_set1_epi32(start[row])), ...);
    else
      ((acc[row][0] = load(sums + row * ldc), acc[row][1] = load(sums + row * ldc + 8)), ...);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int group = 0; group < groups; group++, inputs += 4, weights += 64) {
      const __m256i weights0 = load(weights), weights1 = load(weights + 32);
      (multiply_add(acc[row][0], acc[row][1], four(inputs + row * row_bytes),
                    four(inputs + row * row_bytes + 64), weights0, weights1, ones),
       ...);
    }
    ((store(sums + row * ldc, acc[row][0]), store(sums + row * ldc + 8, acc[row][1])), ...);
  }
};

}  // namespace OI8_NAMESPACE
