// The integer tile on AVX2: widened to int16 and multiplied with vpmaddwd, which cannot overflow here (vpmaddubsw saturates and is
// not used). Contract in tile_amx.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace OI8_NAMESPACE {

struct Tile {
  static constexpr int rows = 32;
  static void enter() {}
  static void leave() {}

  // 16 channels (one half of a panel) of R rows; each accumulator holds two partial sums per channel
  template <int R>
  static inline void half_panel(const uint8_t *a, int64_t lda, const int8_t *half, int steps, int32_t *c, int64_t ldc) {
    __m256i acc[R][4];
    for (int r = 0; r < R; r++)
      for (int j = 0; j < 4; j++) acc[r][j] = _mm256_setzero_si256();
    for (int s = 0; s < steps; s++, half += 2048)
      for (int g = 0; g < 16; g++) {
        __m256i x[R];
        for (int r = 0; r < R; r++) {
          int32_t four;
          std::memcpy(&four, a + r * lda + s * 64 + g * 4, 4);
          x[r] = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
        }
        for (int j = 0; j < 4; j++) {
          const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(half + g * 64 + j * 16)));
          for (int r = 0; r < R; r++) acc[r][j] = _mm256_add_epi32(acc[r][j], _mm256_madd_epi16(x[r], b));
        }
      }
    for (int r = 0; r < R; r++)
      for (int j = 0; j < 2; j++) {
        const __m256i pairs = _mm256_hadd_epi32(acc[r][2 * j], acc[r][2 * j + 1]);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(c + r * ldc + j * 8), _mm256_permute4x64_epi64(pairs, 0xd8));
      }
  }

  template <class Between>
  static inline void block(const uint8_t *a, int64_t lda, int rows, const int8_t *panel, int steps, int32_t *c, int64_t ldc, Between &&between) {
    for (int h = 0; h < 2; h++) {
      int r = 0;
      for (; r + 2 <= rows; r += 2) half_panel<2>(a + r * lda, lda, panel + h * 1024, steps, c + r * ldc + h * 16, ldc);
      for (; r < rows; r++) half_panel<1>(a + r * lda, lda, panel + h * 1024, steps, c + r * ldc + h * 16, ldc);
    }
    for (int s = 0; s < steps; s++) between(s);
  }
};

}  // namespace OI8_NAMESPACE
