// Stands before the compiler's <immintrin.h> and replaces the AVX-512 and AMX instructions that isa/ and ops/ use by plain C++, after
// Intel's intrinsics guide and manual (volume 2, TDPBUSD, TDPBF16PS). With it the code for both runs on any CPU with AVX2, slowly: a test can hold
// it to the definition where the processor lacks the instructions. An intrinsic that is missing here fails to compile or to inline.
#pragma once
#include_next <immintrin.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulation {

using Floats = __m512;
using Ints = __m512i;

template <class T, class V>
struct Lanes {
  static constexpr int count = sizeof(V) / sizeof(T);
  T at[count];
  explicit Lanes(V v) { std::memcpy(at, &v, sizeof v); }
  Lanes() = default;
  V vector() const {
    V v;
    std::memcpy(&v, at, sizeof v);
    return v;
  }
};
using F32 = Lanes<float, Floats>;
using I32 = Lanes<int32_t, Ints>;
using I16 = Lanes<int16_t, Ints>;
using U8 = Lanes<uint8_t, Ints>;

template <class Out, class F>
inline auto make(F f) {
  Out out;
  for (int i = 0; i < Out::count; i++) out.at[i] = f(i);
  return out.vector();
}
template <class T, class F>
inline auto each(decltype(T().vector()) x, decltype(T().vector()) y, F f) {
  const T a(x), b(y);
  return make<T>([&](int i) { return f(a.at[i], b.at[i]); });
}
inline int32_t wrap(int64_t x) { return static_cast<int32_t>(static_cast<uint32_t>(x)); }
inline bool on(uint32_t mask, int i) { return mask >> i & 1; }

inline Floats set1_ps(float x) { return make<F32>([&](int) { return x; }); }
inline Ints set1_epi32(int32_t x) { return make<I32>([&](int) { return x; }); }
inline Ints set1_epi8(char x) { return make<U8>([&](int) { return static_cast<uint8_t>(x); }); }
inline Ints setzero_si512() { return set1_epi32(0); }
template <class... T>
inline Ints setr_epi32(T... x) {
  const int32_t values[16] = {x...};
  return make<I32>([&](int i) { return values[i]; });
}

template <class T>
inline T loadu(const void *p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void storeu(void *p, T v) {
  std::memcpy(p, &v, sizeof v);
}
inline Floats maskz_loadu_ps(uint32_t mask, const float *p) { return make<F32>([&](int i) { return on(mask, i) ? p[i] : 0.0f; }); }
inline void mask_storeu_ps(float *p, uint32_t mask, Floats v) {
  for (int i = 0; i < 16; i++)
    if (on(mask, i)) p[i] = F32(v).at[i];
}
inline __m128i maskz_loadu_epi8(uint32_t mask, const void *p) {
  uint8_t bytes[16] = {};
  for (int i = 0; i < 16; i++)
    if (on(mask, i)) bytes[i] = static_cast<const uint8_t *>(p)[i];
  return loadu<__m128i>(bytes);
}
inline Ints mask_i32gather_epi32(Ints from, uint32_t mask, Ints index, const void *base, int scale) {
  const I32 at(index), old(from);
  return make<I32>([&](int i) { return on(mask, i) ? loadu<int32_t>(static_cast<const char *>(base) + int64_t(at.at[i]) * scale) : old.at[i]; });
}

inline Floats add_ps(Floats a, Floats b) { return each<F32>(a, b, [](float x, float y) { return x + y; }); }
inline Floats sub_ps(Floats a, Floats b) { return each<F32>(a, b, [](float x, float y) { return x - y; }); }
inline Floats mul_ps(Floats a, Floats b) { return each<F32>(a, b, [](float x, float y) { return x * y; }); }
inline Floats div_ps(Floats a, Floats b) { return each<F32>(a, b, [](float x, float y) { return x / y; }); }
// the second operand when either is NaN
inline Floats max_ps(Floats a, Floats b) { return each<F32>(a, b, [](float x, float y) { return x > y ? x : y; }); }
inline Floats min_ps(Floats a, Floats b) { return each<F32>(a, b, [](float x, float y) { return x < y ? x : y; }); }
inline Floats abs_ps(Floats a) { return each<F32>(a, a, [](float x, float) { return std::fabs(x); }); }
inline Floats roundscale_ps(Floats a, int) { return each<F32>(a, a, [](float x, float) { return std::nearbyintf(x); }); }
// of a whole number, as it is used
inline Floats scalef_ps(Floats a, Floats b) { return each<F32>(a, b, [](float x, float y) { return std::ldexp(x, static_cast<int>(y)); }); }
inline Floats fmadd_ps(Floats a, Floats b, Floats c) { return make<F32>([&](int i) { return std::fma(F32(a).at[i], F32(b).at[i], F32(c).at[i]); }); }
inline __mmask16 above_ps_mask(Floats a, Floats b) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; i++) mask |= uint32_t(F32(a).at[i] > F32(b).at[i]) << i;
  return static_cast<__mmask16>(mask);
}
inline Floats maskz_mov_ps(uint32_t mask, Floats a) { return make<F32>([&](int i) { return on(mask, i) ? F32(a).at[i] : 0.0f; }); }
inline Floats mask_blend_ps(uint32_t mask, Floats a, Floats b) { return make<F32>([&](int i) { return on(mask, i) ? F32(b).at[i] : F32(a).at[i]; }); }
inline float reduce_max_ps(Floats a) {
  float found = F32(a).at[0];
  for (const float x : F32(a).at) found = x > found ? x : found;
  return found;
}
inline float reduce_min_ps(Floats a) {
  float found = F32(a).at[0];
  for (const float x : F32(a).at) found = x < found ? x : found;
  return found;
}
inline Floats permutexvar_ps(Ints index, Floats a) { return make<F32>([&](int i) { return F32(a).at[I32(index).at[i] & 15]; }); }
inline Floats broadcast_f32x8(__m256 a) { return make<F32>([&](int i) { return Lanes<float, __m256>(a).at[i % 8]; }); }
inline __m256 extractf32x8_ps(Floats a, int half) { return loadu<__m256>(F32(a).at + 8 * half); }

inline Ints add_epi32(Ints a, Ints b) { return each<I32>(a, b, [](int64_t x, int64_t y) { return wrap(x + y); }); }
inline Ints sub_epi32(Ints a, Ints b) { return each<I32>(a, b, [](int64_t x, int64_t y) { return wrap(x - y); }); }
inline Ints mullo_epi32(Ints a, Ints b) { return each<I32>(a, b, [](int64_t x, int64_t y) { return wrap(x * y); }); }
inline Ints slli_epi32(Ints a, int n) { return each<I32>(a, a, [n](int64_t x, int64_t) { return wrap(x << n); }); }
inline Ints srai_epi32(Ints a, int n) { return each<I32>(a, a, [n](int32_t x, int32_t) { return x >> n; }); }
inline Ints xor_si512(Ints a, Ints b) { return each<I32>(a, b, [](int32_t x, int32_t y) { return x ^ y; }); }
inline Ints and_si512(Ints a, Ints b) { return each<I32>(a, b, [](int32_t x, int32_t y) { return x & y; }); }
inline Ints or_si512(Ints a, Ints b) { return each<I32>(a, b, [](int32_t x, int32_t y) { return x | y; }); }
inline Ints srli_epi32(Ints a, int n) { return each<I32>(a, a, [n](int32_t x, int32_t) { return static_cast<int32_t>(static_cast<uint32_t>(x) >> n); }); }
inline Ints ternarylogic_epi32(Ints a, Ints b, Ints c, int table) {
  const I32 x(a), y(b), z(c);
  return make<I32>([&](int i) {
    uint32_t out = 0;
    for (int bit = 0; bit < 32; bit++)
      out |= uint32_t(table >> (on(x.at[i], bit) << 2 | on(y.at[i], bit) << 1 | on(z.at[i], bit)) & 1) << bit;
    return static_cast<int32_t>(out);
  });
}
inline Floats cvtepi32_ps(Ints a) { return make<F32>([&](int i) { return static_cast<float>(I32(a).at[i]); }); }
inline Ints cvtps_epi32(Floats a) { return make<I32>([&](int i) { return _mm_cvtss_si32(_mm_set_ss(F32(a).at[i])); }); }
inline Ints cvttps_epi32(Floats a) { return make<I32>([&](int i) { return _mm_cvttss_si32(_mm_set_ss(F32(a).at[i])); }); }
inline Ints cvtepi8_epi32(__m128i a) {
  int8_t bytes[16];
  storeu(bytes, a);
  return make<I32>([&](int i) { return bytes[i]; });
}
inline Ints cvtepu8_epi32(__m128i a) {
  uint8_t bytes[16];
  storeu(bytes, a);
  return make<I32>([&](int i) { return bytes[i]; });
}
inline Ints cvtepu16_epi32(__m256i a) {
  uint16_t shorts[16];
  storeu(shorts, a);
  return make<I32>([&](int i) { return shorts[i]; });
}
inline Ints cvtepu8_epi16(__m256i a) {
  uint8_t bytes[32];
  storeu(bytes, a);
  return make<I16>([&](int i) { return int16_t(bytes[i]); });
}
inline Ints madd_epi16(Ints a, Ints b) {
  const I16 x(a), y(b);
  return make<I32>([&](int i) { return wrap(int64_t(x.at[2 * i]) * y.at[2 * i] + int64_t(x.at[2 * i + 1]) * y.at[2 * i + 1]); });
}
inline Ints dpwssd_epi32(Ints sum, Ints a, Ints b) { return add_epi32(sum, madd_epi16(a, b)); }
// What works within 128 bits is SSE's, four times.
template <class F>
inline Ints by_quarters(Ints a, Ints b, F f) {
  __m128i x[4], y[4];
  storeu(x, a), storeu(y, b);
  for (int i = 0; i < 4; i++) x[i] = f(x[i], y[i]);
  return loadu<Ints>(x);
}
inline Ints packs_epi32(Ints a, Ints b) { return by_quarters(a, b, [](__m128i x, __m128i y) { return _mm_packs_epi32(x, y); }); }
inline Ints packus_epi16(Ints a, Ints b) { return by_quarters(a, b, [](__m128i x, __m128i y) { return _mm_packus_epi16(x, y); }); }
inline Ints adds_epi16(Ints a, Ints b) { return by_quarters(a, b, [](__m128i x, __m128i y) { return _mm_adds_epi16(x, y); }); }
inline Ints max_epu8(Ints a, Ints b) { return by_quarters(a, b, [](__m128i x, __m128i y) { return _mm_max_epu8(x, y); }); }
inline Ints permutexvar_epi32(Ints order, Ints a) { return each<I32>(order, order, [&](int32_t i, int32_t) { return I32(a).at[i & 15]; }); }
inline __m256i castsi512_si256(Ints a) { return loadu<__m256i>(I32(a).at); }
inline __m128i cvtepi32_epi8(Ints a) {
  uint8_t bytes[16];
  for (int i = 0; i < 16; i++) bytes[i] = static_cast<uint8_t>(I32(a).at[i]);
  return loadu<__m128i>(bytes);
}
inline __m256i cvtepi32_epi16(Ints a) {
  int16_t words[16];
  for (int i = 0; i < 16; i++) words[i] = static_cast<int16_t>(I32(a).at[i]);
  return loadu<__m256i>(words);
}
inline void mask_cvtepi32_storeu_epi8(void *p, uint32_t mask, Ints a) {
  for (int i = 0; i < 16; i++)
    if (on(mask, i)) static_cast<uint8_t *>(p)[i] = static_cast<uint8_t>(I32(a).at[i]);
}
inline __mmask16 test_epi8_mask(__m128i a, __m128i b) { return static_cast<__mmask16>(~_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_and_si128(a, b), _mm_setzero_si128()))); }
inline int32_t dot4(int32_t sum, const uint8_t *x, const uint8_t *y) {
  for (int i = 0; i < 4; i++) sum = wrap(int64_t(sum) + int32_t(x[i]) * int8_t(y[i]));
  return sum;
}
inline Ints dpbusd_epi32(Ints sum, Ints a, Ints b) {
  const U8 x(a), y(b);
  const I32 s(sum);
  return make<I32>([&](int i) { return dot4(s.at[i], x.at + 4 * i, y.at + 4 * i); });
}

// Eight tiles of 16 rows of 64 bytes per thread, as `Tile::enter` configures them.
struct TileData {
  uint8_t row[16][64];
};
inline TileData &tile(int i) {
  static thread_local TileData tiles[8];
  return tiles[i];
}
inline void tile_zero(int t) { std::memset(&tile(t), 0, sizeof(TileData)); }
inline void tile_loadd(int t, const void *base, int64_t stride) {
  for (int r = 0; r < 16; r++) std::memcpy(tile(t).row[r], static_cast<const char *>(base) + r * stride, 64);
}
inline void tile_stored(int t, void *base, int64_t stride) {
  for (int r = 0; r < 16; r++) std::memcpy(static_cast<char *>(base) + r * stride, tile(t).row[r], 64);
}
inline void tile_dpbusd(int c, int a, int b) {
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 16; n++) {
      int32_t sum = loadu<int32_t>(tile(c).row[m] + 4 * n);
      for (int k = 0; k < 16; k++) sum = dot4(sum, tile(a).row[m] + 4 * k, tile(b).row[k] + 4 * n);
      storeu(tile(c).row[m] + 4 * n, sum);
    }
}
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float from_bfloat16(const uint8_t *p) { return flushed(loadu<float>(std::array<uint16_t, 2>{0, loadu<uint16_t>(p)}.data())); }
inline void tile_dpbf16ps(int c, int a, int b) {
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 16; n++) {
      float chain[2] = {0.0f, 0.0f};
      for (int k = 0; k < 16; k++)
        for (int i = 0; i < 2; i++) chain[i] = flushed(std::fma(from_bfloat16(tile(a).row[m] + 4 * k + 2 * i), from_bfloat16(tile(b).row[k] + 4 * n + 2 * i), chain[i]));
      storeu(tile(c).row[m] + 4 * n, flushed(flushed(loadu<float>(tile(c).row[m] + 4 * n)) + flushed(chain[0] + chain[1])));
    }
}

}  // namespace emulation

#define _mm512_set1_ps emulation::set1_ps
#define _mm512_set1_epi32 emulation::set1_epi32
#define _mm512_set1_epi8 emulation::set1_epi8
#define _mm512_setzero_si512 emulation::setzero_si512
#undef _mm512_setr_epi32
#define _mm512_setr_epi32 emulation::setr_epi32
#define _mm512_loadu_ps emulation::loadu<__m512>
#define _mm512_loadu_si512 emulation::loadu<__m512i>
#define _mm512_storeu_ps emulation::storeu<__m512>
#define _mm512_storeu_si512 emulation::storeu<__m512i>
#define _mm512_maskz_loadu_ps emulation::maskz_loadu_ps
#define _mm512_mask_storeu_ps emulation::mask_storeu_ps
#define _mm_maskz_loadu_epi8 emulation::maskz_loadu_epi8
#undef _mm512_mask_i32gather_epi32
#define _mm512_mask_i32gather_epi32 emulation::mask_i32gather_epi32
#define _mm512_add_ps emulation::add_ps
#define _mm512_sub_ps emulation::sub_ps
#define _mm512_mul_ps emulation::mul_ps
#define _mm512_div_ps emulation::div_ps
#define _mm512_fmadd_ps emulation::fmadd_ps
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, kind) emulation::above_ps_mask(a, b)  // the only kind in use: _CMP_GT_OQ
#define _mm512_maskz_mov_ps emulation::maskz_mov_ps
#define _mm512_max_ps emulation::max_ps
#define _mm512_min_ps emulation::min_ps
#define _mm512_abs_ps emulation::abs_ps
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps emulation::roundscale_ps
#undef _mm512_scalef_ps
#define _mm512_scalef_ps emulation::scalef_ps
#define _mm512_permutexvar_ps emulation::permutexvar_ps
#define _mm512_broadcast_f32x8 emulation::broadcast_f32x8
#define _mm512_mask_blend_ps emulation::mask_blend_ps
#define _mm512_reduce_max_ps emulation::reduce_max_ps
#define _mm512_reduce_min_ps emulation::reduce_min_ps
#define _mm512_castps512_ps256(x) emulation::extractf32x8_ps(x, 0)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps emulation::extractf32x8_ps
#define _mm512_castps_si512(x) ((__m512i)(x))
#define _mm512_castsi512_ps(x) ((__m512)(x))
#define _mm512_add_epi32 emulation::add_epi32
#define _mm512_sub_epi32 emulation::sub_epi32
#define _mm512_mullo_epi32 emulation::mullo_epi32
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 emulation::slli_epi32
#undef _mm512_srai_epi32
#define _mm512_srai_epi32 emulation::srai_epi32
#undef _mm512_srli_epi32
#define _mm512_srli_epi32 emulation::srli_epi32
#define _mm512_and_si512 emulation::and_si512
#define _mm512_or_si512 emulation::or_si512
#define _mm512_xor_si512 emulation::xor_si512
#undef _mm512_ternarylogic_epi32
#define _mm512_ternarylogic_epi32 emulation::ternarylogic_epi32
#define _mm512_cvtepi32_ps emulation::cvtepi32_ps
#define _mm512_cvtps_epi32 emulation::cvtps_epi32
#define _mm512_cvttps_epi32 emulation::cvttps_epi32
#define _mm512_cvtepi8_epi32 emulation::cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emulation::cvtepu8_epi32
#define _mm512_cvtepu16_epi32 emulation::cvtepu16_epi32
#define _mm512_cvtepu8_epi16 emulation::cvtepu8_epi16
#define _mm512_madd_epi16 emulation::madd_epi16
#define _mm512_cvtepi32_epi8 emulation::cvtepi32_epi8
#define _mm512_cvtepi32_epi16 emulation::cvtepi32_epi16
#define _mm512_mask_cvtepi32_storeu_epi8 emulation::mask_cvtepi32_storeu_epi8
#define _mm_test_epi8_mask emulation::test_epi8_mask
#define _mm512_dpbusd_epi32 emulation::dpbusd_epi32
#define _mm512_dpwssd_epi32 emulation::dpwssd_epi32
#define _mm512_packs_epi32 emulation::packs_epi32
#define _mm512_packus_epi16 emulation::packus_epi16
#define _mm512_adds_epi16 emulation::adds_epi16
#define _mm512_max_epu8 emulation::max_epu8
#define _mm512_permutexvar_epi32 emulation::permutexvar_epi32
#define _mm512_castsi512_si256 emulation::castsi512_si256

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#undef _tile_release
#define _tile_zero emulation::tile_zero
#define _tile_loadd emulation::tile_loadd
#define _tile_stored emulation::tile_stored
#define _tile_dpbusd emulation::tile_dpbusd
#define _tile_dpbf16ps emulation::tile_dpbf16ps
#define _tile_release() ((void)0)

// What the sources ask the compiler for.
#define __AVX512VNNI__ 1
#define OI8_EMULATED 1
