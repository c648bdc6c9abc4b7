// 16 float32 or int32 lanes in two AVX2 registers; lanes 0-7 in `a`, 8-15 in `b`.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "narrow_avx.h"
#include "transpose_avx.h"

namespace OI8_NAMESPACE {

struct F {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};

inline __m256i lanes_below(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }

inline F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline I set_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline F load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F load(const float *p, int n) { return {_mm256_maskload_ps(p, lanes_below(n)), _mm256_maskload_ps(p + 8, lanes_below(n - 8))}; }
inline I load(const int32_t *p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p + 8))};
}
inline __m128i load_16_bytes(const void *p, int n) {
  alignas(16) uint8_t t[16] = {0};
  std::memcpy(t, p, n > 16 ? 16 : n);
  return _mm_load_si128(reinterpret_cast<const __m128i *>(t));
}
inline I load_bytes(const int8_t *p, int n) {
  __m128i x = load_16_bytes(p, n);
  return {_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))};
}
inline I load_ubytes(const uint8_t *p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
  return {_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}
inline void store(int32_t *p, I x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p + 8), x.b);
}
inline void store(float *p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store(float *p, F x, int n) {
  _mm256_maskstore_ps(p, lanes_below(n), x.a);
  _mm256_maskstore_ps(p + 8, lanes_below(n - 8), x.b);
}
inline __m128i to_bytes(I x) {
  __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
  return _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}
inline void store_bytes(uint8_t *p, I x) { _mm_storeu_si128(reinterpret_cast<__m128i *>(p), to_bytes(x)); }
inline void store_bytes(uint8_t *p, I a, I b, I c, I d) {
  store_bytes(p, a), store_bytes(p + 16, b), store_bytes(p + 32, c), store_bytes(p + 48, d);
}
inline void store_bytes(uint8_t *p, I x, int n) {
  alignas(16) uint8_t t[16];
  _mm_store_si128(reinterpret_cast<__m128i *>(t), to_bytes(x));
  std::memcpy(p, t, n > 16 ? 16 : n);
}
inline F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
// x * y + sum, rounded once
inline F multiply_add(F x, F y, F sum) { return {_mm256_fmadd_ps(x.a, y.a, sum.a), _mm256_fmadd_ps(x.b, y.b, sum.b)}; }
inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F round(F x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
inline F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline I truncate(F x) { return {_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b)}; }
inline F lookup(const float (&table)[8], I index) {
  const __m256 t = _mm256_loadu_ps(table);
  return {_mm256_permutevar8x32_ps(t, index.a), _mm256_permutevar8x32_ps(t, index.b)};
}
inline I add(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I sub(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline I mul(I x, I y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
template <int n>
inline I shift_left(I x) {
  return {_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)};
}
template <int n>
inline I shift_right(I x) {
  return {_mm256_srai_epi32(x.a, n), _mm256_srai_epi32(x.b, n)};
}
// sum[i] + x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1], of int16
inline I add_products(I sum, I x, I y) { return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(x.a, y.a)), _mm256_add_epi32(sum.b, _mm256_madd_epi16(x.b, y.b))}; }
// sum[i] + x[i] * w[2 * i] + y[i] * w[2 * i + 1]
inline I add_products(I sum, const uint8_t *x, const uint8_t *y, const int16_t *w) {
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x)), b = _mm_loadu_si128(reinterpret_cast<const __m128i *>(y));
  const I weight = load(reinterpret_cast<const int32_t *>(w));
  return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)), weight.a)),
          _mm256_add_epi32(sum.b, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b)), weight.b))};
}
inline F scale_exponent(F x, F n) {
  auto one = [](__m256 v, __m256 e) { return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), _mm256_slli_epi32(_mm256_cvtps_epi32(e), 23))); };
  return {one(x.a, n.a), one(x.b, n.b)};
}
inline F absolute(F x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F copy_sign(F magnitude, F sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  auto one = [bit](__m256 m, __m256 s) { return _mm256_or_ps(_mm256_andnot_ps(bit, m), _mm256_and_ps(bit, s)); };
  return {one(magnitude.a, sign.a), one(magnitude.b, sign.b)};
}
inline F blend(__m256i ma, __m256i mb, F x, F y) {
  return {_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(ma)), _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(mb))};
}
inline F select(const uint8_t *p, int n, F x, F y) {
  __m128i zero = _mm_cmpeq_epi8(load_16_bytes(p, n), _mm_setzero_si128());
  return blend(_mm256_cvtepi8_epi32(zero), _mm256_cvtepi8_epi32(_mm_srli_si128(zero, 8)), y, x);
}
inline F keep(int n, F x, F y) { return blend(lanes_below(n), lanes_below(n - 8), x, y); }

// x where y is larger than the limit, else 0
inline F where_above(F y, F limit, F x) {
  return {_mm256_and_ps(_mm256_cmp_ps(y.a, limit.a, _CMP_GT_OQ), x.a), _mm256_and_ps(_mm256_cmp_ps(y.b, limit.b, _CMP_GT_OQ), x.b)};
}
// the next bfloat16, half to even
inline F to_bfloat16(F x) {
  auto one = [](__m256 v) {
    const __m256i bits = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    return _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(-0x10000)));
  };
  return {one(x.a), one(x.b)};
}

// Sums of a float tile that stay in registers (ops/float_tile.h), and how many rows it has.
constexpr int float_vectors = 6, float_rows = 6;

// Two times 16 values as bytes: round(x) + zero_point with x cut to low ... high, where `Positive` to 0 ... high. NaN gives low.
// Packing cuts too: `high` is for what no integer holds, and instead of `low` comes the least byte.
template <bool Positive>
inline void store_quantized(uint8_t *p, F x, F y, F, F high, I zero_point) {
  const __m256i zero = _mm256_packs_epi32(zero_point.a, zero_point.a);
  const auto shorts = [&](F v) {  // min's second operand is the result where one is NaN
    const __m256i a = _mm256_cvtps_epi32(_mm256_min_ps(high.a, v.a)), b = _mm256_cvtps_epi32(_mm256_min_ps(high.a, v.b));
    return _mm256_adds_epi16(_mm256_packs_epi32(a, b), zero);
  };
  __m256i bytes = _mm256_packus_epi16(shorts(x), shorts(y));
  if constexpr (Positive) bytes = _mm256_max_epu8(bytes, _mm256_packus_epi16(zero, zero));
  bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), bytes);
}

// of uint16
inline I widen(Shorts x) { return {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(x.v)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x.v, 1))}; }

// Tiles of winograd.h whose sums stay in registers.
constexpr int winograd_rows = 6;

// The same with a count known to be 16.
using Whole = std::integral_constant<int, 16>;
inline F load(const float *p, Whole) { return load(p); }
inline void store(float *p, F x, Whole) { store(p, x); }
inline void store_bytes(uint8_t *p, I x, Whole) { store_bytes(p, x); }
inline F keep(Whole, F a, F) { return a; }

inline float sum(F x) {
  __m256 s = _mm256_add_ps(x.a, x.b);
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_shuffle_ps(y, y, 1)));
}
inline float largest(F x) {
  __m256 s = _mm256_max_ps(x.a, x.b);
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_shuffle_ps(y, y, 1)));
}
inline float smallest(F x) {
  const F zero = set(0.0f);
  return -largest(sub(zero, x));
}

}  // namespace OI8_NAMESPACE
