// 16 float32 or int32 lanes in two AVX2 registers; lanes 0-7 in `low`, 8-15 in `high`.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "narrow_avx.h"
#include "transpose_avx.h"

namespace OI8_NAMESPACE {

struct Floats {
  __m256 low, high;
};
struct Ints {
  __m256i low, high;
};

inline __m256i lanes_below(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Floats set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Ints set_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Floats load(const float *source) {
  return {_mm256_loadu_ps(source), _mm256_loadu_ps(source + 8)};
}
inline Floats load(const float *source, int count) {
  return {_mm256_maskload_ps(source, lanes_below(count)),
          _mm256_maskload_ps(source + 8, lanes_below(count - 8))};
}
inline Ints load(const int32_t *source) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(source)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i *>(source + 8))};
}
inline __m128i load_16_bytes(const void *source, int count) {
  alignas(16) uint8_t bytes[16] = {0};
  std::memcpy(bytes, source, count > 16 ? 16 : count);
  return _mm_load_si128(reinterpret_cast<const __m128i *>(bytes));
}
inline Ints load_bytes(const int8_t *source, int count) {
  __m128i x = load_16_bytes(source, count);
  return {_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))};
}
inline Ints load_ubytes(const uint8_t *source) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i *>(source));
  return {_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}
inline void store(int32_t *target, Ints x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(target), x.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(target + 8), x.high);
}
inline void store(float *target, Floats x) {
  _mm256_storeu_ps(target, x.low);
  _mm256_storeu_ps(target + 8, x.high);
}
inline void store(float *target, Floats x, int count) {
  _mm256_maskstore_ps(target, lanes_below(count), x.low);
  _mm256_maskstore_ps(target + 8, lanes_below(count - 8), x.high);
}
inline __m128i to_bytes(Ints x) {
  __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.low, x.high), 0xd8);
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
inline void store_bytes(uint8_t *target, Ints x) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(target), to_bytes(x));
}
inline void store_bytes(uint8_t *target, Ints first, Ints second, Ints third, Ints fourth) {
  store_bytes(target, first), store_bytes(target + 16, second), store_bytes(target + 32, third),
      store_bytes(target + 48, fourth);
}
inline void store_bytes(uint8_t *target, Ints x, int count) {
  alignas(16) uint8_t bytes[16];
  _mm_store_si128(reinterpret_cast<__m128i *>(bytes), to_bytes(x));
  std::memcpy(target, bytes, count > 16 ? 16 : count);
}
inline Floats add(Floats x, Floats y) {
  return {_mm256_add_ps(x.low, y.low), _mm256_add_ps(x.high, y.high)};
}
inline Floats sub(Floats x, Floats y) {
  return {_mm256_sub_ps(x.low, y.low), _mm256_sub_ps(x.high, y.high)};
}
inline Floats mul(Floats x, Floats y) {
  return {_mm256_mul_ps(x.low, y.low), _mm256_mul_ps(x.high, y.high)};
}
inline Floats div(Floats x, Floats y) {
  return {_mm256_div_ps(x.low, y.low), _mm256_div_ps(x.high, y.high)};
}
// x * y + sum, rounded once
inline Floats multiply_add(Floats x, Floats y, Floats sum) {
  return {_mm256_fmadd_ps(x.low, y.low, sum.low), _mm256_fmadd_ps(x.high, y.high, sum.high)};
}
inline Floats max(Floats x, Floats y) {
  return {_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high)};
}
inline Floats min(Floats x, Floats y) {
  return {_mm256_min_ps(x.low, y.low), _mm256_min_ps(x.high, y.high)};
}
inline Floats round(Floats x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.low, mode), _mm256_round_ps(x.high, mode)};
}
inline Floats to_float(Ints x) { return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)}; }
inline Ints to_int(Floats x) { return {_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high)}; }
inline Ints truncate(Floats x) { return {_mm256_cvttps_epi32(x.low), _mm256_cvttps_epi32(x.high)}; }
inline Floats lookup(const float (&table)[8], Ints index) {
  const __m256 entries = _mm256_loadu_ps(table);
  return {_mm256_permutevar8x32_ps(entries, index.low),
          _mm256_permutevar8x32_ps(entries, index.high)};
}
inline Ints add(Ints x, Ints y) {
  return {_mm256_add_epi32(x.low, y.low), _mm256_add_epi32(x.high, y.high)};
}
inline Ints sub(Ints x, Ints y) {
  return {_mm256_sub_epi32(x.low, y.low), _mm256_sub_epi32(x.high, y.high)};
}
inline Ints mul(Ints x, Ints y) {
  return {_mm256_mullo_epi32(x.low, y.low), _mm256_mullo_epi32(x.high, y.high)};
}
template <int Bits>
inline Ints shift_left(Ints x) {
  return {_mm256_slli_epi32(x.low, Bits), _mm256_slli_epi32(x.high, Bits)};
}
template <int Bits>
inline Ints shift_right(Ints x) {
  return {_mm256_srai_epi32(x.low, Bits), _mm256_srai_epi32(x.high, Bits)};
}
// sum[i] + x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1], of int16
inline Ints add_products(Ints sum, Ints x, Ints y) {
  return {_mm256_add_epi32(sum.low, _mm256_madd_epi16(x.low, y.low)),
          _mm256_add_epi32(sum.high, _mm256_madd_epi16(x.high, y.high))};
}
// sum[i] + x[i] * w[2 * i] + y[i] * w[2 * i + 1]
inline Ints add_products(Ints sum, const uint8_t *x, const uint8_t *y, const int16_t *weights) {
  const __m128i first_bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x)),
                second_bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(y));
  const Ints weight = load(reinterpret_cast<const int32_t *>(weights));
  return {_mm256_add_epi32(sum.low, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(
                                                          first_bytes, second_bytes)),
                                                      weight.low)),
          _mm256_add_epi32(sum.high, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(
                                                           first_bytes, second_bytes)),
                                                       weight.high))};
}
inline Floats scale_exponent(Floats x, Floats exponent) {
  auto one = [](__m256 value, __m256 power) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value),
                                                _mm256_slli_epi32(_mm256_cvtps_epi32(power), 23)));
  };
  return {one(x.low, exponent.low), one(x.high, exponent.high)};
}
inline Floats absolute(Floats x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.low), _mm256_andnot_ps(sign, x.high)};
}
inline Floats copy_sign(Floats magnitude, Floats sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  auto one = [bit](__m256 value, __m256 signed_value) {
    return _mm256_or_ps(_mm256_andnot_ps(bit, value), _mm256_and_ps(bit, signed_value));
  };
  return {one(magnitude.low, sign.low), one(magnitude.high, sign.high)};
}
inline Floats blend(__m256i low_mask, __m256i high_mask, Floats x, Floats y) {
  return {_mm256_blendv_ps(y.low, x.low, _mm256_castsi256_ps(low_mask)),
          _mm256_blendv_ps(y.high, x.high, _mm256_castsi256_ps(high_mask))};
}
inline Floats select(const uint8_t *source, int count, Floats x, Floats y) {
  __m128i zero = _mm_cmpeq_epi8(load_16_bytes(source, count), _mm_setzero_si128());
  return blend(_mm256_cvtepi8_epi32(zero), _mm256_cvtepi8_epi32(_mm_srli_si128(zero, 8)), y, x);
}
inline Floats keep(int count, Floats x, Floats y) {
  return blend(lanes_below(count), lanes_below(count - 8), x, y);
}

// x where y is larger than the limit, else 0
inline Floats where_above(Floats y, Floats limit, Floats x) {
  return {_mm256_and_ps(_mm256_cmp_ps(y.low, limit.low, _CMP_GT_OQ), x.low),
          _mm256_and_ps(_mm256_cmp_ps(y.high, limit.high, _CMP_GT_OQ), x.high)};
}
// the next bfloat16, half to even
inline Floats to_bfloat16(Floats x) {
  auto one = [](__m256 value) {
    const __m256i bits = _mm256_castps_si256(value),
                  odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    return _mm256_castsi256_ps(_mm256_and_si256(rounded, _mm256_set1_epi32(-0x10000)));
  };
  return {one(x.low), one(x.high)};
}

// Sums of a float tile that stay in registers (ops/float_tile.h), and how many rows it has.
constexpr int float_vectors = 6, float_rows = 6;

// Two times 16 values as bytes: round(x) + zero_point with x cut to low ... high, where `Positive`
// to 0 ... high. NaN gives low. Packing cuts too: `high` is for what no integer holds, and instead
// of `low` comes the least byte.
template <bool Positive>
inline void store_quantized(uint8_t *target, Floats x, Floats y, Floats, Floats high,
                            Ints zero_point) {
  const __m256i zero = _mm256_packs_epi32(zero_point.low, zero_point.low);
  const auto shorts = [&](Floats values) {  // min's second operand is the result where one is NaN
    const __m256i first = _mm256_cvtps_epi32(_mm256_min_ps(high.low, values.low)),
                  second = _mm256_cvtps_epi32(_mm256_min_ps(high.low, values.high));
    return _mm256_adds_epi16(_mm256_packs_epi32(first, second), zero);
  };
  __m256i bytes = _mm256_packus_epi16(shorts(x), shorts(y));
  if constexpr (Positive) bytes = _mm256_max_epu8(bytes, _mm256_packus_epi16(zero, zero));
  bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(target), bytes);
}

// of uint16
inline Ints widen(Shorts x) {
  return {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(x.lanes)),
          _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x.lanes, 1))};
}

// Tiles of winograd.h whose sums stay in registers.
constexpr int winograd_rows = 6;

// The same with a count known to be 16.
using Whole = std::integral_constant<int, 16>;
inline Floats load(const float *source, Whole) { return load(source); }
inline void store(float *target, Floats x, Whole) { store(target, x); }
inline void store_bytes(uint8_t *target, Ints x, Whole) { store_bytes(target, x); }
inline Floats keep(Whole, Floats x, Floats) { return x; }

inline float sum(Floats x) {
  __m256 eight = _mm256_add_ps(x.low, x.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline float largest(Floats x) {
  __m256 eight = _mm256_max_ps(x.low, x.high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline float smallest(Floats x) {
  const Floats zero = set(0.0f);
  return -largest(sub(zero, x));
}

}  // namespace OI8_NAMESPACE
