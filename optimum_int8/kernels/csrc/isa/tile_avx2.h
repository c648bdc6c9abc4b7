// The integer tile on AVX2: widened to int16 and multiplied with vpmaddwd, which cannot overflow here (vpmaddubsw saturates and is
// not used). Contract in tile_amx.h.
//
// Of every four bytes along K, bytes 0 and 2 make one pair of int16 and bytes 1 and 3 another: two shifts split a register so, and no
// channel changes its place. A step of A is split once for all channels, a step of the panel once for all rows when there are many.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace OI8_NAMESPACE {

struct Tile {
  static constexpr int rows = 32;
  static void enter() {}
  static void leave() {}

  template <class Between>
  static inline void block(const uint8_t *a, int64_t lda, int rows, const int8_t *panel, int steps, int32_t *c, int64_t ldc, Between &&between) {
    alignas(32) int16_t pairs[rows_of_pairs][2][32];
    alignas(32) int8_t split[32][2][32];
    for (int s = 0; s < steps; s++, panel += 2048) {
      for (int r = 0; r < rows; r++) split_row(a + r * lda + s * 64, pairs[r]);
      for (int h = 0; h < 2; h++) {
        const int8_t *half = panel + h * 1024;
        int32_t *out = c + h * 16;
        if (rows <= together) {
          all_rows<Packed>(pairs, half, rows, out, ldc, s == 0);
        } else {
          for (int i = 0; i < 32; i++) split_32(half + i * 32, split[i]);
          all_rows<Split>(pairs, split[0][0], rows, out, ldc, s == 0);
        }
      }
      between(s);
    }
  }

 private:
  static constexpr int rows_of_pairs = 32, together = 6;  // six rows by sixteen channels, one value of A, two of the panel: 16 registers

  static inline __m256i load(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
  static inline void store(void *p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i *>(p), x); }

  static inline void split_row(const uint8_t *row, int16_t (*out)[32]) {
    for (int i = 0; i < 2; i++) {
      const __m256i x = load(row + i * 32);
      store(out[0] + i * 16, _mm256_and_si256(x, _mm256_set1_epi16(0xff)));
      store(out[1] + i * 16, _mm256_srli_epi16(x, 8));
    }
  }
  static inline __m256i even(__m256i x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
  static inline __m256i odd(__m256i x) { return _mm256_srai_epi16(x, 8); }
  static inline void split_32(const int8_t *from, int8_t (*out)[32]) {
    const __m256i x = load(from);
    store(out[0], even(x));
    store(out[1], odd(x));
  }

  // Where eight channels of group g come from.
  struct Packed {
    static inline __m256i get(const int8_t *b, int g, int j, int parity) {
      const __m256i x = load(b + (g * 2 + j) * 32);
      return parity ? odd(x) : even(x);
    }
  };
  struct Split {
    static inline __m256i get(const int8_t *b, int g, int j, int parity) { return load(b + (g * 2 + j) * 64 + parity * 32); }
  };

  template <class From>
  static inline void all_rows(const int16_t (*pairs)[2][32], const int8_t *b, int rows, int32_t *c, int64_t ldc, bool first) {
    int r = 0;
    for (; r + 6 <= rows && r + 8 != rows; r += 6) some_rows<From>(pairs + r, b, c + r * ldc, ldc, first, std::make_integer_sequence<int, 6>());
    for (; r + 4 <= rows; r += 4) some_rows<From>(pairs + r, b, c + r * ldc, ldc, first, std::make_integer_sequence<int, 4>());
    for (; r + 2 <= rows; r += 2) some_rows<From>(pairs + r, b, c + r * ldc, ldc, first, std::make_integer_sequence<int, 2>());
    for (; r < rows; r++) some_rows<From>(pairs + r, b, c + r * ldc, ldc, first, std::make_integer_sequence<int, 1>());
  }

  // In this order: gcc 12 would compute the products of all rows first, and spill them.
  static inline void multiply_add(__m256i &sum, __m256i x, __m256i y) {
    __m256i product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(x), "x"(y));
  }

  // Rows r... by 16 channels over one step. Folds, because gcc keeps an array in registers only if its indices are constants from the start.
  template <class From, int... r>
  static inline void some_rows(const int16_t (*pairs)[2][32], const int8_t *b, int32_t *c, int64_t ldc, bool first, std::integer_sequence<int, r...>) {
    __m256i acc[sizeof...(r)][2] = {};
    if (!first) ((acc[r][0] = load(c + r * ldc), acc[r][1] = load(c + r * ldc + 8)), ...);
    for (int g = 0; g < 16; g++)
      for (int parity = 0; parity < 2; parity++) {
        const __m256i b0 = From::get(b, g, 0, parity), b1 = From::get(b, g, 1, parity);
        const auto row = [&](const int16_t *a, __m256i &left, __m256i &right) {
          int32_t pair;
          std::memcpy(&pair, a, 4);
          const __m256i x = _mm256_set1_epi32(pair);
          multiply_add(left, x, b0);
          multiply_add(right, x, b1);
        };
        (row(pairs[r][parity] + g * 2, acc[r][0], acc[r][1]), ...);
      }
    ((store(c + r * ldc, acc[r][0]), store(c + r * ldc + 8, acc[r][1])), ...);
  }
};

}  // namespace OI8_NAMESPACE
