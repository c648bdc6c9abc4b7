// 16 float32 or int32 lanes in one AVX-512 register. Same operations in vector_avx2.h and
// vector_portable.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "narrow_avx.h"
#include "transpose_avx.h"

namespace OI8_NAMESPACE {

using Floats = __m512;
using Ints = __m512i;

inline __mmask16 first(int count) {
  return count >= 16 ? __mmask16(0xffff) : __mmask16((1u << count) - 1);
}

inline Floats set(float x) { return _mm512_set1_ps(x); }
inline Ints set_int(int32_t x) { return _mm512_set1_epi32(x); }
inline Floats load(const float *source) { return _mm512_loadu_ps(source); }
inline Floats load(const float *source, int count) {
  return _mm512_maskz_loadu_ps(first(count), source);
}
inline Ints load(const int32_t *source) { return _mm512_loadu_si512(source); }
inline Ints load_bytes(const int8_t *source, int count) {
  return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(count), source));
}
inline Ints load_ubytes(const uint8_t *source) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(source)));
}
inline void store(int32_t *target, Ints x) { _mm512_storeu_si512(target, x); }
inline void store(float *target, Floats x) { _mm512_storeu_ps(target, x); }
inline void store(float *target, Floats x, int count) {
  _mm512_mask_storeu_ps(target, first(count), x);
}
inline void store_bytes(uint8_t *target, Ints x) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(target), _mm512_cvtepi32_epi8(x));
}
inline void store_bytes(uint8_t *target, Ints x, Ints y) {
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtepi32_epi8(x)),
                                               _mm512_cvtepi32_epi8(y), 1);
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(target), both);
}
// Where each group of four bytes belongs that packing twice leaves lane by lane.
inline Ints packed_order() {
  return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}
// four times 16 values from 0 to 255
inline void store_bytes(uint8_t *target, Ints first, Ints second, Ints third, Ints fourth) {
  const __m512i bytes =
      _mm512_packus_epi16(_mm512_packs_epi32(first, second), _mm512_packs_epi32(third, fourth));
  store(reinterpret_cast<int32_t *>(target), _mm512_permutexvar_epi32(packed_order(), bytes));
}
inline void store_bytes(uint8_t *target, Ints x, int count) {
  _mm512_mask_cvtepi32_storeu_epi8(target, first(count), x);
}

inline Floats add(Floats x, Floats y) { return _mm512_add_ps(x, y); }
inline Floats sub(Floats x, Floats y) { return _mm512_sub_ps(x, y); }
inline Floats mul(Floats x, Floats y) { return _mm512_mul_ps(x, y); }
inline Floats div(Floats x, Floats y) { return _mm512_div_ps(x, y); }
inline Floats multiply_add(Floats x, Floats y, Floats sum) {
  return _mm512_fmadd_ps(x, y, sum);
}  // rounded once
inline Floats max(Floats x, Floats y) { return _mm512_max_ps(x, y); }  // b when a is NaN
inline Floats min(Floats x, Floats y) { return _mm512_min_ps(x, y); }
inline Floats round(Floats x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Floats to_float(Ints x) { return _mm512_cvtepi32_ps(x); }
inline Ints to_int(Floats x) { return _mm512_cvtps_epi32(x); }     // half to even; |a| < 2**31
inline Ints truncate(Floats x) { return _mm512_cvttps_epi32(x); }  // |a| < 2**31
// table[index], of an index from 0 to 7
inline Floats lookup(const float (&table)[8], Ints index) {
  return _mm512_permutexvar_ps(index, _mm512_broadcast_f32x8(_mm256_loadu_ps(table)));
}
inline Ints add(Ints x, Ints y) { return _mm512_add_epi32(x, y); }
inline Ints sub(Ints x, Ints y) { return _mm512_sub_epi32(x, y); }
inline Ints mul(Ints x, Ints y) { return _mm512_mullo_epi32(x, y); }
template <int Bits>
inline Ints shift_left(Ints x) {
  return _mm512_slli_epi32(x, Bits);
}
template <int Bits>
inline Ints shift_right(Ints x) {
  return _mm512_srai_epi32(x, Bits);
}
// sum[i] + x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1], of int16
inline Ints add_products(Ints sum, Ints x, Ints y) { return _mm512_dpwssd_epi32(sum, x, y); }
// sum[i] + x[i] * w[2 * i] + y[i] * w[2 * i + 1]
inline Ints add_products(Ints sum, const uint8_t *x, const uint8_t *y, const int16_t *weights) {
  const __m128i first_bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x)),
                second_bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(y));
  const __m256i pairs =
      _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(first_bytes, second_bytes)),
                              _mm_unpackhi_epi8(first_bytes, second_bytes), 1);
  return _mm512_add_epi32(
      sum, _mm512_madd_epi16(_mm512_cvtepu8_epi16(pairs), _mm512_loadu_si512(weights)));
}
inline Floats scale_exponent(Floats x, Floats exponent) {
  return _mm512_scalef_ps(x, exponent);
}  // a * 2**n, of a whole n and a normal result
inline Floats absolute(Floats x) { return _mm512_abs_ps(x); }
inline Floats copy_sign(Floats magnitude, Floats sign) {
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(magnitude),
                                                       _mm512_castps_si512(sign),
                                                       _mm512_set1_epi32(0x7fffffff), 0xe4));
}
// a where the byte is not zero, else b
inline Floats select(const uint8_t *source, int count, Floats x, Floats y) {
  return _mm512_mask_blend_ps(
      _mm_test_epi8_mask(_mm_maskz_loadu_epi8(first(count), source), _mm_set1_epi8(-1)), y, x);
}
// a in the first n lanes, else b
inline Floats keep(int count, Floats x, Floats y) {
  return _mm512_mask_blend_ps(first(count < 0 ? 0 : count), y, x);
}

// x where y is larger than the limit, else 0
inline Floats where_above(Floats y, Floats limit, Floats x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, limit, _CMP_GT_OQ), x);
}
// the next bfloat16, half to even
inline Floats to_bfloat16(Floats x) {
  const __m512i bits = _mm512_castps_si512(x),
                odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(-0x10000)));
}

// Sums of a float tile that stay in registers (ops/float_tile.h), and how many rows it has.
constexpr int float_vectors = 24, float_rows = 12;

// of uint16
inline Ints widen(Shorts x) { return _mm512_cvtepu16_epi32(x.lanes); }

// Tiles of winograd.h whose sums stay in registers.
constexpr int winograd_rows = 12;

// The same with a count known to be 16.
using Whole = std::integral_constant<int, 16>;
inline Floats load(const float *source, Whole) { return load(source); }
inline void store(float *target, Floats x, Whole) { store(target, x); }
inline void store_bytes(uint8_t *target, Ints x, Whole) { store_bytes(target, x); }
inline Floats keep(Whole, Floats x, Floats) { return x; }

// Two times 16 values as bytes: round(x) + zero_point with x cut to low ... high, where `Positive`
// to 0 ... high. NaN gives low.
template <bool Positive>
inline void store_quantized(uint8_t *target, Floats x, Floats y, Floats, Floats high,
                            Ints zero_point) {
  const __m512i zero = _mm512_packs_epi32(zero_point, zero_point);
  const __m512i first = to_int(min(high, x)),
                second =
                    to_int(min(high, y));  // min's second operand is the result where one is NaN
  const __m512i shorts = _mm512_adds_epi16(_mm512_packs_epi32(first, second), zero);
  __m512i bytes = _mm512_packus_epi16(shorts, shorts);
  if constexpr (Positive) bytes = _mm512_max_epu8(bytes, _mm512_packus_epi16(zero, zero));
  bytes = _mm512_permutexvar_epi32(packed_order(), bytes);
  store_32(target, _mm512_castsi512_si256(bytes));
}

inline float sum(Floats all) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline float largest(Floats all) { return _mm512_reduce_max_ps(all); }
inline float smallest(Floats all) { return _mm512_reduce_min_ps(all); }

}  // namespace OI8_NAMESPACE
