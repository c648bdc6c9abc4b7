// The integer tile on AVX2: vpmaddubsw, made exact. Contract in tile_amx.h.
//
// vpmaddubsw multiplies unsigned by signed bytes and adds pairs in int16, where 255 * 127 * 2 saturates. Therefore A is shifted by 128 to
// signed, and enters as its magnitude, at most 128, while the weight takes its sign: 128 * 128 * 2 just fits, since only -32768 is reached.
// The sign is applied by inverting bits, -w - 1, which costs one operation on any port; the magnitudes of the negative values of a row,
// added to its sums, make up for the ones. Sums are those of A - 128 (`offset`). Rows are rewritten once for all panels (`prepare`).
// Of the last step only the groups of four that hold something are multiplied.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace OI8_NAMESPACE {

struct Tile {
  static constexpr int rows = 32;
  static constexpr int32_t offset = 128;

  // Of 32 rows: what their sums begin with, then for each step and row 64 magnitudes and 64 signs (0 or -1).
  struct Rows {
    const int32_t *start;
    const uint8_t *steps;
    int groups;
  };
  static constexpr int64_t row_bytes = 128, step_bytes = (rows + 1) * row_bytes;  // not a multiple of 4 KiB, at which stores would meet in one set of the cache

  static void enter() {}
  static void leave() {}
  static int64_t prepared_bytes(int steps) { return rows * 4 + steps * step_bytes; }

  static inline Rows prepare(const uint8_t *a, int64_t lda, int count, int columns, char *to) {
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
    return {start, out, groups};
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
  static inline void block(const Rows &x, int count, const int8_t *panel, int steps, int32_t *c, int64_t ldc, Between &&between) {
    for (int s = 0; s < steps; s++, panel += 2048) {
      const int groups = x.groups - s * 16 < 16 ? x.groups - s * 16 : 16;
      for (int h = 0; h < 2; h++) all_rows(x.steps + s * step_bytes, groups, s ? nullptr : x.start, count, panel + h * 1024, c + h * 16, ldc);
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
