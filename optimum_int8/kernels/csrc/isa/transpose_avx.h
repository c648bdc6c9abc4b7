// 16 x 16 values of four bytes, transposed in AVX registers; AVX-512 takes it as well: its own way needs as many shuffles.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace OI8_NAMESPACE {

// out[j][i] = the j-th four bytes of row i
inline void transpose_16(const void *rows, int64_t stride, float *out) {
  for (int quarter = 0; quarter < 4; quarter++) {
    const char *from = static_cast<const char *>(rows) + quarter / 2 * 8 * stride + quarter % 2 * 32;
    const auto half = [&](int row, int column) { return _mm_loadu_ps(reinterpret_cast<const float *>(from + row * stride + column * 16)); };
    __m256 x[8], y[8];
    for (int c = 0; c < 2; c++)
      for (int i = 0; i < 4; i++) x[c * 4 + i] = _mm256_insertf128_ps(_mm256_castps128_ps256(half(i, c)), half(i + 4, c), 1);
    for (int c = 0; c < 8; c += 4) {
      y[c] = _mm256_unpacklo_ps(x[c], x[c + 1]), y[c + 1] = _mm256_unpackhi_ps(x[c], x[c + 1]);
      y[c + 2] = _mm256_unpacklo_ps(x[c + 2], x[c + 3]), y[c + 3] = _mm256_unpackhi_ps(x[c + 2], x[c + 3]);
      x[c] = _mm256_shuffle_ps(y[c], y[c + 2], 0x44), x[c + 1] = _mm256_shuffle_ps(y[c], y[c + 2], 0xee);
      x[c + 2] = _mm256_shuffle_ps(y[c + 1], y[c + 3], 0x44), x[c + 3] = _mm256_shuffle_ps(y[c + 1], y[c + 3], 0xee);
    }
    for (int j = 0; j < 8; j++) _mm256_storeu_ps(out + (quarter % 2 * 8 + j) * 16 + quarter / 2 * 8, x[j]);
  }
}

}  // namespace OI8_NAMESPACE
