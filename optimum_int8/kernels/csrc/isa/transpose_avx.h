// 16 x 16 values of four bytes, transposed in AVX registers; AVX-512 takes it as well: its own way
// needs as many shuffles.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "namespace.h"

namespace OI8_NAMESPACE {

// out[j][i] = the j-th four bytes of row i
inline void transpose_16(const void *rows, int64_t stride, float *out) {
  for (int quarter = 0; quarter < 4; quarter++) {
    const char *from =
        static_cast<const char *>(rows) + quarter / 2 * 8 * stride + quarter % 2 * 32;
    const auto half = [&](int row, int column) {
      return _mm_loadu_ps(reinterpret_cast<const float *>(from + row * stride + column * 16));
    };
    __m256 lines[8], mixed[8];
    for (int column = 0; column < 2; column++)
      for (int i = 0; i < 4; i++)
        lines[column * 4 + i] =
            _mm256_insertf128_ps(_mm256_castps128_ps256(half(i, column)), half(i + 4, column), 1);
    for (int column = 0; column < 8; column += 4) {
      mixed[column] = _mm256_unpacklo_ps(lines[column], lines[column + 1]),
      mixed[column + 1] = _mm256_unpackhi_ps(lines[column], lines[column + 1]);
      mixed[column + 2] = _mm256_unpacklo_ps(lines[column + 2], lines[column + 3]),
                     mixed[column + 3] = _mm256_unpackhi_ps(lines[column + 2], lines[column + 3]);
      lines[column] = _mm256_shuffle_ps(mixed[column], mixed[column + 2], 0x44),
      lines[column + 1] = _mm256_shuffle_ps(mixed[column], mixed[column + 2], 0xee);
      lines[column + 2] = _mm256_shuffle_ps(mixed[column + 1], mixed[column + 3], 0x44),
                     lines[column + 3] =
                         _mm256_shuffle_ps(mixed[column + 1], mixed[column + 3], 0xee);
    }
    for (int j = 0; j < 8; j++)
      _mm256_storeu_ps(out + (quarter % 2 * 8 + j) * 16 + quarter / 2 * 8, lines[j]);
  }
}

}  // namespace OI8_NAMESPACE
