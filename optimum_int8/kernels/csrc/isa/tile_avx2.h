// The integer tile on AVX2: vpmaddubsw, made exact in two ways. Contract in tile_amx.h. Sums are those of A - 128 (`offset`).
//
// vpmaddubsw multiplies unsigned by signed bytes and adds pairs in int16, where 255 * 127 * 2 saturates.
//
// Clamped weights (clamped_avx2.h), where they were prepared and there are rows to divide the cost of the excess by: A enters as it is, four
// rows interleaved, since its groups of inputs are read in the order of each half of a panel.
// Any weights: A is shifted by 128 to signed, and enters as its magnitude, at most 128, while the weight takes its sign: 128 * 128 * 2 just
// fits, since only -32768 is reached. The sign is applied by inverting bits, -w - 1, which costs one operation on any port; the magnitudes
// of the negative values of a row, added to its sums, make up for the ones. Rows are rewritten once for all panels (`prepare`).
// Of the last step only the groups of four that hold something are multiplied.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "clamped_avx2.h"
#include "rows.h"

namespace OI8_NAMESPACE {

struct Tile {
  static constexpr int rows = 32;
  static constexpr bool winograd = true, takes_runs = false;
  // Vector instructions. Direct: 2.5 for 32 products, a seventh more for the excess, and a quarter less of all, as one long product keeps the ports
  // busier than a mixture.
  static constexpr WinogradCosts winograd_costs = {20.8, 144, 920, 300, 18};
  static constexpr int32_t offset = 128;

  // For clamped weights rows four by four and transposed. Otherwise these are null, and of each row: what its sums begin with, then for
  // each step 64 magnitudes and 64 signs (0 or -1).
  struct Rows {
    const uint8_t *fours, *transposed;
    const int32_t *start;
    const uint8_t *steps;
    int groups;
  };
  struct Panel {
    const int8_t *bytes;
    const PanelExcess *excess;  // null: as packed
    const uint16_t *order;
    const char *end;
  };

  static void enter() {}
  static void leave() {}

  static int pauses(int steps) { return steps; }

  // Few rows cost less without the excess.
  static const void *prepared_for(const void *prepared, int64_t rows) { return rows < 6 ? nullptr : prepared; }
  static constexpr bool keeps_rows = false;

  static inline Panel panel(const void *weight, const void *prepared, int64_t index, int steps) {
    const int64_t bytes = int64_t(steps) * 2048;
    if (!prepared) {
      const int8_t *packed = static_cast<const int8_t *>(weight) + index * bytes;
      return {packed, nullptr, nullptr, reinterpret_cast<const char *>(packed + bytes)};
    }
    const char *p = static_cast<const char *>(prepared);
    int64_t at[2];
    std::memcpy(at, p + index * 8, 16);
    const char *const order = p + at[0] + bytes;
    return {reinterpret_cast<const int8_t *>(p + at[0]), reinterpret_cast<const PanelExcess *>(order + order_bytes(steps)), reinterpret_cast<const uint16_t *>(order), p + at[1]};
  }
  static Stretch bytes_of(const Panel &panel, int) { return {reinterpret_cast<const char *>(panel.bytes), panel.end - reinterpret_cast<const char *>(panel.bytes)}; }

  // not a multiple of 4 KiB, at which stores would meet in one set of the cache
  static constexpr int64_t row_bytes = 128, step_bytes = (rows + 1) * row_bytes;

  static int64_t prepared_bytes(int steps, const void *prepared = nullptr) {
    return prepared ? int64_t(steps) * 2048 + rows / 4 * four_rows_bytes(steps) : rows * 4 + steps * step_bytes;
  }

  static inline Rows prepare(const uint8_t *a, int64_t lda, int count, int columns, char *to, const void *prepared = nullptr) {
    if (!prepared) return with_signs(a, lda, count, columns, to);
    uint8_t *const transposed = reinterpret_cast<uint8_t *>(to), *const fours = transposed + int64_t((columns + 63) / 64) * 2048;
    transpose_rows(a, lda, count, columns, transposed);
    interleave_rows(a, lda, count, columns, fours);
    return {fours, transposed, nullptr, nullptr, (columns + 3) / 4};
  }

  static inline Rows with_signs(const uint8_t *a, int64_t lda, int count, int columns, char *to) {
    int32_t *start = reinterpret_cast<int32_t *>(to);
    uint8_t *out = reinterpret_cast<uint8_t *>(to + rows * 4);
    const __m256i flip = _mm256_set1_epi8(char(0x80)), zero = _mm256_setzero_si256();
    const int groups = (columns + 3) / 4, whole = groups / 8;
    const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(groups % 8), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (int r = 0; r < count; r++) {
      __m256i negative = zero;
      const auto put = [&](int i, __m256i x) {
        const __m256i y = _mm256_xor_si256(x, flip);
        uint8_t *at = out + i / 2 * step_bytes + r * row_bytes + i % 2 * 32;
        store(at, _mm256_abs_epi8(y));
        store(at + 64, _mm256_cmpgt_epi8(zero, y));
        negative = _mm256_add_epi64(negative, _mm256_sad_epu8(_mm256_subs_epu8(flip, x), zero));
      };
      for (int i = 0; i < whole; i++) put(i, load(a + r * lda + i * 32));
      if (groups % 8) put(whole, _mm256_blendv_epi8(flip, load(a + r * lda + whole * 32), inside));
      const __m128i sum = _mm_add_epi64(_mm256_castsi256_si128(negative), _mm256_extracti128_si256(negative, 1));
      start[r] = _mm_cvtsi128_si32(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum)));
    }
    return {nullptr, nullptr, start, out, groups};
  }

  static inline void column_sums(const int8_t *panel, int columns, int32_t *sums) {
    const __m256i ones = _mm256_set1_epi8(1), wide = _mm256_set1_epi16(1);
    __m256i acc[4] = {};
    for (int g = 0; g < (columns + 3) / 4; g++)
      for (int i = 0; i < 4; i++) {
        const __m256i w = load(panel + g / 16 * 2048 + i / 2 * 1024 + g % 16 * 64 + i % 2 * 32);
        acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(ones, w), wide));
      }
    for (int i = 0; i < 4; i++) store(sums + i * 8, acc[i]);
  }

  template <class Between>
  static inline void block(const Rows &x, int count, const Panel &panel, int steps, int32_t *c, int64_t ldc, Ahead &ahead, Between &&between) {
    if (!x.transposed) return block(x, count, panel.bytes, steps, c, ldc, ahead, between);
    if (count > 16) begin_sums<true>(panel.excess, x.transposed, c, ldc);
    else begin_sums<false>(panel.excess, x.transposed, c, ldc);
    const int lines = ahead.share((count + 3) / 4 * 2);
    const int8_t *b = panel.bytes;
    for (int s = 0; s < steps; s += span, b += span * 2048) {
      const int last = s + span < steps ? s + span : steps, pairs = ((last * 16 < x.groups ? last * 16 : x.groups) - s * 16 + 1) / 2;
      for (int r = 0; r < count; r += 4)
        for (int h = 0; h < 2; h++) {
          const uint8_t *a = x.fours + r / 4 * four_rows_bytes(steps) + s * 16 * row_group_bytes;
          const uint16_t *order = panel.order + (h * steps + s) * 16;
          int32_t *out = c + r * ldc + h * 16;
          switch (count - r) {
            case 1: some_clamped(a, order, pairs, b + h * 1024, out, ldc, ahead, lines, std::make_integer_sequence<int, 1>()); break;
            case 2: some_clamped(a, order, pairs, b + h * 1024, out, ldc, ahead, lines, std::make_integer_sequence<int, 2>()); break;
            case 3: some_clamped(a, order, pairs, b + h * 1024, out, ldc, ahead, lines, std::make_integer_sequence<int, 3>()); break;
            default: some_clamped(a, order, pairs, b + h * 1024, out, ldc, ahead, lines, std::make_integer_sequence<int, 4>());
          }
        }
      for (int i = s; i < last; i++) between(i);
    }
  }

  template <class Between>
  static inline void block(const Rows &x, int count, const int8_t *panel, int steps, int32_t *c, int64_t ldc, Ahead &ahead, Between &&between) {
    for (int s = 0; s < steps; s++, panel += 2048) {
      const int groups = x.groups - s * 16 < 16 ? x.groups - s * 16 : 16;
      for (int h = 0; h < 2; h++) {
        ahead.fetch(ahead.share(2));
        all_rows(x.steps + s * step_bytes, groups, s ? nullptr : x.start, count, panel + h * 1024, c + h * 16, ldc);
      }
      between(s);
    }
  }

 private:
  static inline __m256i load(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
  static inline void store(void *p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i *>(p), x); }
  static inline __m256i four(const uint8_t *p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return _mm256_set1_epi32(x);
  }

  static constexpr int span = pairing_steps;

  // One row of two groups by 16 channels. In assembly, because gcc 12 would copy registers in a loop that is unrolled; 17 are needed, so that the
  // second weights stay in memory.
  static inline void add_fours(__m256i (&sums)[2], __m256i x, __m256i y, __m256i b0, const int8_t *b1, __m256i b2, __m256i b3, __m256i ones) {
    __m256i left, right;
    __asm__(
        "vpmaddubsw %6, %2, %4\n\tvpmaddubsw %7, %2, %2\n\tvpmaddubsw %8, %3, %5\n\tvpmaddubsw %9, %3, %3\n\t"
        "vpaddw %5, %4, %4\n\tvpaddw %3, %2, %2\n\tvpmaddwd %10, %4, %4\n\tvpmaddwd %10, %2, %2\n\tvpaddd %4, %0, %0\n\tvpaddd %2, %1, %1"
        : "+x"(sums[0]), "+x"(sums[1]), "+x"(x), "+x"(y), "=&x"(left), "=&x"(right)
        : "x"(b0), "m"(*reinterpret_cast<const __m256i_u *>(b1)), "x"(b2), "x"(b3), "x"(ones));
  }

  // Rows r... by 16 clamped channels; `pairs` of groups of four, which lie 8 to a step.
  template <int... r>
  static inline void some_clamped(const uint8_t *a, const uint16_t *order, int pairs, const int8_t *b, int32_t *c, int64_t ldc, Ahead &ahead, int lines, std::integer_sequence<int, r...>) {
    __m256i acc[sizeof...(r)][2];
    ((acc[r][0] = load(c + r * ldc), acc[r][1] = load(c + r * ldc + 8)), ...);
    const __m256i ones = _mm256_set1_epi16(1);
    const auto pair = [&](int i) __attribute__((always_inline)) {
      const uint8_t *one = a + order[2 * i], *other = a + order[2 * i + 1];
      const int8_t *w = b + i * 128;
      const __m256i b0 = load(w), b2 = load(w + 64), b3 = load(w + 96);
      (add_fours(acc[r], four(one + r * 4), four(other + r * 4), b0, w + 32, b2, b3, ones), ...);
    };
    for (; pairs >= 8; pairs -= 8, order += 16, b += 2048) {
      ahead.fetch(lines);
#pragma GCC unroll 8  // what a loop costs is a tenth of the instructions
      for (int i = 0; i < 8; i++) pair(i);
    }
    ahead.fetch(pairs ? lines : 0);
    for (int i = 0; i < pairs; i++) pair(i);
    ((store(c + r * ldc, acc[r][0]), store(c + r * ldc + 8, acc[r][1])), ...);
  }

  static inline void all_rows(const uint8_t *a, int groups, const int32_t *start, int count, const int8_t *b, int32_t *c, int64_t ldc) {
    int r = 0;
    const auto some = [&](auto sequence, int n) {
      some_rows(a + r * row_bytes, groups, start ? start + r : nullptr, b, c + r * ldc, ldc, sequence);
      r += n;
    };
    while (r + 4 <= count && r + 5 != count) some(std::make_integer_sequence<int, 4>(), 4);
    if (r + 3 <= count) some(std::make_integer_sequence<int, 3>(), 3);
    if (r + 2 <= count) some(std::make_integer_sequence<int, 2>(), 2);
    if (r < count) some(std::make_integer_sequence<int, 1>(), 1);
  }

  // In this order: gcc 12 would compute the products of all rows first, and spill them.
  static inline void multiply_add(__m256i &left, __m256i &right, __m256i x, __m256i sign, __m256i b0, __m256i b1, __m256i ones) {
    __m256i other;
    __asm__(
        "vpxor %5, %3, %2\n\tvpxor %6, %3, %3\n\tvpmaddubsw %2, %4, %2\n\tvpmaddubsw %3, %4, %3\n\t"
        "vpmaddwd %7, %2, %2\n\tvpmaddwd %7, %3, %3\n\tvpaddd %2, %0, %0\n\tvpaddd %3, %1, %1"
        : "+x"(left), "+x"(right), "=&x"(other), "+x"(sign)
        : "x"(x), "x"(b0), "x"(b1), "x"(ones));
  }

  // Rows r... by 16 channels over one step. Folds, because gcc keeps an array in registers only if its indices are constants from the start.
  template <int... r>
  static inline void some_rows(const uint8_t *a, int groups, const int32_t *start, const int8_t *b, int32_t *c, int64_t ldc, std::integer_sequence<int, r...>) {
    __m256i acc[sizeof...(r)][2];
    if (start)
      ((acc[r][0] = acc[r][1] = _mm256_set1_epi32(start[r])), ...);
    else
      ((acc[r][0] = load(c + r * ldc), acc[r][1] = load(c + r * ldc + 8)), ...);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int g = 0; g < groups; g++, a += 4, b += 64) {
      const __m256i b0 = load(b), b1 = load(b + 32);
      (multiply_add(acc[r][0], acc[r][1], four(a + r * row_bytes), four(a + r * row_bytes + 64), b0, b1, ones), ...);
    }
    ((store(c + r * ldc, acc[r][0]), store(c + r * ldc + 8, acc[r][1])), ...);
  }
};

}  // namespace OI8_NAMESPACE
