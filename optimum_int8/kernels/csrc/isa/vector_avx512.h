// 16 float32 or int32 lanes in one AVX-512 register. Same operations in vector_avx2.h and vector_portable.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "narrow_avx.h"
#include "transpose_avx.h"

namespace OI8_NAMESPACE {

using F = __m512;
using I = __m512i;

inline __mmask16 first(int n) { return n >= 16 ? __mmask16(0xffff) : __mmask16((1u << n) - 1); }

inline F set(float x) { return _mm512_set1_ps(x); }
inline I set_int(int32_t x) { return _mm512_set1_epi32(x); }
inline F load(const float *p) { return _mm512_loadu_ps(p); }
inline F load(const float *p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline I load(const int32_t *p) { return _mm512_loadu_si512(p); }
inline I load_bytes(const int8_t *p, int n) { return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(n), p)); }
inline I load_ubytes(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))); }
inline void store(int32_t *p, I x) { _mm512_storeu_si512(p, x); }
inline void store(float *p, F x) { _mm512_storeu_ps(p, x); }
inline void store(float *p, F x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
inline void store_bytes(uint8_t *p, I x) { _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtepi32_epi8(x)); }
inline void store_bytes(uint8_t *p, I x, I y) {
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtepi32_epi8(x)), _mm512_cvtepi32_epi8(y), 1);
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), both);
}
// Where the fours of bytes belong that packing twice leaves lane by lane.
inline I packed_order() { return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); }
// four times 16 values from 0 to 255
inline void store_bytes(uint8_t *p, I a, I b, I c, I d) {
  const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
  store(reinterpret_cast<int32_t *>(p), _mm512_permutexvar_epi32(packed_order(), bytes));
}
inline void store_bytes(uint8_t *p, I x, int n) { _mm512_mask_cvtepi32_storeu_epi8(p, first(n), x); }

inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F multiply_add(F a, F b, F sum) { return _mm512_fmadd_ps(a, b, sum); }  // rounded once
inline F max(F a, F b) { return _mm512_max_ps(a, b); }  // b when a is NaN
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
inline I to_int(F a) { return _mm512_cvtps_epi32(a); }  // half to even; |a| < 2**31
inline I truncate(F a) { return _mm512_cvttps_epi32(a); }  // |a| < 2**31
// table[index], of an index from 0 to 7
inline F lookup(const float (&table)[8], I index) { return _mm512_permutexvar_ps(index, _mm512_broadcast_f32x8(_mm256_loadu_ps(table))); }
inline I add(I a, I b) { return _mm512_add_epi32(a, b); }
inline I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
inline I mul(I a, I b) { return _mm512_mullo_epi32(a, b); }
template <int n>
inline I shift_left(I x) {
  return _mm512_slli_epi32(x, n);
}
template <int n>
inline I shift_right(I x) {
  return _mm512_srai_epi32(x, n);
}
// sum[i] + x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1], of int16
inline I add_products(I sum, I x, I y) { return _mm512_dpwssd_epi32(sum, x, y); }
// sum[i] + x[i] * w[2 * i] + y[i] * w[2 * i + 1]
inline I add_products(I sum, const uint8_t *x, const uint8_t *y, const int16_t *w) {
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x)), b = _mm_loadu_si128(reinterpret_cast<const __m128i *>(y));
  const __m256i pairs = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(a, b)), _mm_unpackhi_epi8(a, b), 1);
  return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_cvtepu8_epi16(pairs), _mm512_loadu_si512(w)));
}
inline F scale_exponent(F a, F n) { return _mm512_scalef_ps(a, n); }  // a * 2**n, of a whole n and a normal result
inline F absolute(F a) { return _mm512_abs_ps(a); }
inline F copy_sign(F magnitude, F sign) {
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(magnitude), _mm512_castps_si512(sign), _mm512_set1_epi32(0x7fffffff), 0xe4));
}
// a where the byte is not zero, else b
inline F select(const uint8_t *p, int n, F a, F b) {
  return _mm512_mask_blend_ps(_mm_test_epi8_mask(_mm_maskz_loadu_epi8(first(n), p), _mm_set1_epi8(-1)), b, a);
}
// a in the first n lanes, else b
inline F keep(int n, F a, F b) { return _mm512_mask_blend_ps(first(n < 0 ? 0 : n), b, a); }

// x where y is larger than the limit, else 0
inline F where_above(F y, F limit, F x) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, limit, _CMP_GT_OQ), x); }
// the next bfloat16, half to even
inline F to_bfloat16(F a) {
  const __m512i bits = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(-0x10000)));
}

// Sums of a float tile that stay in registers (ops/float_tile.h), and how many rows it has.
constexpr int float_vectors = 24, float_rows = 12;

// of uint16
inline I widen(Shorts x) { return _mm512_cvtepu16_epi32(x.v); }

// Tiles of winograd.h whose sums stay in registers.
constexpr int winograd_rows = 12;

// The same with a count known to be 16.
using Whole = std::integral_constant<int, 16>;
inline F load(const float *p, Whole) { return load(p); }
inline void store(float *p, F x, Whole) { store(p, x); }
inline void store_bytes(uint8_t *p, I x, Whole) { store_bytes(p, x); }
inline F keep(Whole, F a, F) { return a; }

// Two times 16 values as bytes: round(x) + zero_point with x cut to low ... high, where `Positive` to 0 ... high. NaN gives low.
template <bool Positive>
inline void store_quantized(uint8_t *p, F x, F y, F, F high, I zero_point) {
  const __m512i zero = _mm512_packs_epi32(zero_point, zero_point);
  const __m512i a = to_int(min(high, x)), b = to_int(min(high, y));  // min's second operand is the result where one is NaN
  const __m512i shorts = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
  __m512i bytes = _mm512_packus_epi16(shorts, shorts);
  if constexpr (Positive) bytes = _mm512_max_epu8(bytes, _mm512_packus_epi16(zero, zero));
  bytes = _mm512_permutexvar_epi32(packed_order(), bytes);
  store_32(p, _mm512_castsi512_si256(bytes));
}

inline float sum(F a) {
  __m256 x = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_shuffle_ps(y, y, 1)));
}
inline float largest(F a) { return _mm512_reduce_max_ps(a); }
inline float smallest(F a) { return _mm512_reduce_min_ps(a); }

}  // namespace OI8_NAMESPACE
