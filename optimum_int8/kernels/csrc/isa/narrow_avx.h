// 32 bytes, and 16 int16 lanes, for AVX2 and AVX-512 alike: what they hold is widened to one or two
// of the registers there.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "namespace.h"

namespace OI8_NAMESPACE {

// 32 bytes.
using Bytes = __m256i;
inline Bytes no_bytes() { return _mm256_setzero_si256(); }
inline Bytes load_32(const void *source) {
  return _mm256_loadu_si256(static_cast<const __m256i *>(source));
}
inline void store_32(void *target, Bytes x) {
  _mm256_storeu_si256(static_cast<__m256i *>(target), x);
}
inline Bytes max(Bytes x, Bytes y) { return _mm256_max_epu8(x, y); }

// 16 values in int16 lanes; sums and products wrap.
struct Shorts {
  __m256i lanes;
};
inline Shorts no_shorts() { return {_mm256_setzero_si256()}; }
inline Shorts add_ubytes(Shorts x, const void *source) {
  return {_mm256_add_epi16(
      x.lanes, _mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i *>(source))))};
}
inline void store(int16_t *target, Shorts x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(target), x.lanes);
}
inline Shorts add(Shorts x, Shorts y) { return {_mm256_add_epi16(x.lanes, y.lanes)}; }
inline Shorts sub(Shorts x, Shorts y) { return {_mm256_sub_epi16(x.lanes, y.lanes)}; }
inline Shorts mul(Shorts x, int16_t y) {
  return {_mm256_mullo_epi16(x.lanes, _mm256_set1_epi16(y))};
}
template <int Bits>
inline Shorts shift_left(Shorts x) {
  return {_mm256_slli_epi16(x.lanes, Bits)};
}
// p[i] - 128
inline Shorts centred(const uint8_t *source) {
  return {_mm256_cvtepi8_epi16(_mm_xor_si128(
      _mm_loadu_si128(reinterpret_cast<const __m128i *>(source)), _mm_set1_epi8(char(0x80))))};
}
// The first or the second pair of each of eight groups of four bytes.
template <bool second>
inline Shorts input_pair(const int8_t *source) {
  constexpr char first = second ? 2 : 0, second_byte = first + 1;
  const __m256i order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(-1, first, -1, second_byte, -1, first + 4, -1, second_byte + 4, -1, first + 8,
                    -1, second_byte + 8, -1, first + 12, -1, second_byte + 12));
  return {_mm256_srai_epi16(
      _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(source)), order),
      8)};
}

}  // namespace OI8_NAMESPACE
