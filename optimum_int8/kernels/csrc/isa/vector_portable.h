// 16 float32 or int32 lanes in plain C++: the same results as the SIMD headers, for any CPU and for reading.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace OI8_NAMESPACE {

struct F {
  float v[16];
};
struct I {
  int32_t v[16];
};

template <class R, class Op>
inline R lanes(Op op) {
  R r;
  for (int i = 0; i < 16; i++) r.v[i] = op(i);
  return r;
}

inline F set(float x) {
  return lanes<F>([=](int) { return x; });
}
inline I set_int(int32_t x) {
  return lanes<I>([=](int) { return x; });
}
inline F load(const float *p) {
  return lanes<F>([=](int i) { return p[i]; });
}
inline F load(const float *p, int n) {
  return lanes<F>([=](int i) { return i < n ? p[i] : 0.0f; });
}
inline I load(const int32_t *p) {
  return lanes<I>([=](int i) { return p[i]; });
}
inline I load_bytes(const int8_t *p, int n) {
  return lanes<I>([=](int i) { return i < n ? p[i] : 0; });
}
inline I load_ubytes(const uint8_t *p) {
  return lanes<I>([=](int i) { return p[i]; });
}
inline void store(int32_t *p, const I &x) {
  for (int i = 0; i < 16; i++) p[i] = x.v[i];
}
inline void store(float *p, F x, int n = 16) {
  for (int i = 0; i < 16 && i < n; i++) p[i] = x.v[i];
}
inline void store_bytes(uint8_t *p, I x, int n = 16) {
  for (int i = 0; i < 16 && i < n; i++) p[i] = static_cast<uint8_t>(x.v[i]);
}
inline void store_bytes(uint8_t *p, const I &x, const I &y) {
  store_bytes(p, x);
  store_bytes(p + 16, y);
}
inline void store_bytes(uint8_t *p, const I &a, const I &b, const I &c, const I &d) {
  store_bytes(p, a, b), store_bytes(p + 32, c, d);
}

inline F add(const F &x, const F &y) {
  return lanes<F>([&](int i) { return x.v[i] + y.v[i]; });
}
inline F sub(const F &x, const F &y) {
  return lanes<F>([&](int i) { return x.v[i] - y.v[i]; });
}
inline F mul(const F &x, const F &y) {
  return lanes<F>([&](int i) { return x.v[i] * y.v[i]; });
}
inline F div(const F &x, const F &y) {
  return lanes<F>([&](int i) { return x.v[i] / y.v[i]; });
}
// x * y + sum, rounded once. The product is exact in double; where the sum lies between two floats there, or is tiny, it is rounded anew.
inline F multiply_add(const F &x, const F &y, const F &sum) {
  F r;
  bool rare = false;
  for (int i = 0; i < 16; i++) {
    const double s = static_cast<double>(x.v[i]) * static_cast<double>(y.v[i]) + static_cast<double>(sum.v[i]);
    uint64_t bits;
    std::memcpy(&bits, &s, 8);
    rare |= (bits & 0x1fffffff) == 0x10000000 || (std::fabs(s) < 0x1p-126 && s != 0.0);
    r.v[i] = static_cast<float>(s);
  }
  if (rare)
    for (int i = 0; i < 16; i++) r.v[i] = std::fmaf(x.v[i], y.v[i], sum.v[i]);
  return r;
}
inline F max(const F &x, const F &y) {
  return lanes<F>([&](int i) { return x.v[i] > y.v[i] ? x.v[i] : y.v[i]; });
}
inline F min(const F &x, const F &y) {
  return lanes<F>([&](int i) { return x.v[i] < y.v[i] ? x.v[i] : y.v[i]; });
}
inline F round(const F &x) {
  return lanes<F>([&](int i) { return std::nearbyintf(x.v[i]); });
}
inline F to_float(const I &x) {
  return lanes<F>([&](int i) { return static_cast<float>(x.v[i]); });
}
inline I to_int(const F &x) {
  return lanes<I>([&](int i) { return static_cast<int32_t>(std::nearbyintf(x.v[i])); });
}
inline I truncate(const F &x) {
  return lanes<I>([&](int i) { return static_cast<int32_t>(x.v[i]); });
}
inline F lookup(const float (&table)[8], const I &index) {
  return lanes<F>([&](int i) { return table[index.v[i]]; });
}
// int32 wraps around like the SIMD instructions do
inline I add(const I &x, const I &y) {
  return lanes<I>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(x.v[i]) + static_cast<uint32_t>(y.v[i])); });
}
inline I sub(const I &x, const I &y) {
  return lanes<I>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(x.v[i]) - static_cast<uint32_t>(y.v[i])); });
}
inline I mul(const I &x, const I &y) {
  return lanes<I>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(x.v[i]) * static_cast<uint32_t>(y.v[i])); });
}
// sum[i] + x[i] * w[2 * i] + y[i] * w[2 * i + 1]
inline I add_products(const I &sum, const uint8_t *x, const uint8_t *y, const int16_t *w) {
  return lanes<I>([&](int i) { return sum.v[i] + x[i] * w[2 * i] + y[i] * w[2 * i + 1]; });
}
inline F scale_exponent(const F &x, const F &n) {
  return lanes<F>([&](int i) {
    uint32_t bits;
    std::memcpy(&bits, &x.v[i], 4);
    bits += static_cast<uint32_t>(static_cast<int32_t>(n.v[i])) << 23;
    float r;
    std::memcpy(&r, &bits, 4);
    return r;
  });
}
inline F absolute(const F &x) {
  return lanes<F>([&](int i) { return std::fabs(x.v[i]); });
}
inline F copy_sign(const F &magnitude, const F &sign) {
  return lanes<F>([&](int i) { return std::copysign(magnitude.v[i], sign.v[i]); });
}
inline F select(const uint8_t *p, int n, const F &x, const F &y) {
  return lanes<F>([&](int i) { return i < n && p[i] ? x.v[i] : y.v[i]; });
}
inline F keep(int n, const F &x, const F &y) {
  return lanes<F>([&](int i) { return i < n ? x.v[i] : y.v[i]; });
}

// x where y is larger than the limit, else 0
inline F where_above(const F &y, const F &limit, const F &x) {
  return lanes<F>([&](int i) { return y.v[i] > limit.v[i] ? x.v[i] : 0.0f; });
}
// the next bfloat16, half to even
inline F to_bfloat16(const F &x) {
  return lanes<F>([&](int i) {
    uint32_t bits;
    std::memcpy(&bits, &x.v[i], 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    float r;
    std::memcpy(&r, &bits, 4);
    return r;
  });
}
// out[j][i] = the j-th four bytes of row i
inline void transpose_16(const void *rows, int64_t stride, float *out) {
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) std::memcpy(out + j * 16 + i, static_cast<const char *>(rows) + i * stride + j * 4, 4);
}

// Sums of a float tile that stay in registers (ops/float_tile.h), and how many rows it has.
constexpr int float_vectors = 2, float_rows = 2;

// 32 bytes.
struct Bytes {
  uint8_t v[32];
};
inline Bytes no_bytes() { return {}; }
inline Bytes load_32(const void *p) {
  Bytes x;
  std::memcpy(x.v, p, 32);
  return x;
}
inline void store_32(void *p, const Bytes &x) { std::memcpy(p, x.v, 32); }
inline Bytes max(const Bytes &x, const Bytes &y) {
  Bytes r;
  for (int i = 0; i < 32; i++) r.v[i] = x.v[i] > y.v[i] ? x.v[i] : y.v[i];
  return r;
}

// 16 sums of bytes in uint16 lanes.
struct Shorts {
  uint16_t v[16];
};
inline Shorts no_shorts() { return {}; }
inline Shorts add_ubytes(Shorts x, const void *p) {
  for (int i = 0; i < 16; i++) x.v[i] = static_cast<uint16_t>(x.v[i] + static_cast<const uint8_t *>(p)[i]);
  return x;
}
inline I widen(const Shorts &x) {
  return lanes<I>([&](int i) { return x.v[i]; });
}

// The same with a count known to be 16.
using Whole = std::integral_constant<int, 16>;
inline F load(const float *p, Whole) { return load(p); }
inline void store(float *p, const F &x, Whole) { store(p, x, 16); }
inline void store_bytes(uint8_t *p, const I & x, Whole) { store_bytes(p, x, 16); }
inline F keep(Whole, const F &a, const F &) { return a; }

// Two times 16 values as bytes: round(x) + zero_point with x cut to low ... high, where `Positive` to 0 ... high. NaN gives low.
template <bool Positive>
inline void store_quantized(uint8_t *p, const F &x, const F &y, const F &low, const F &high, const I &zero_point) {
  const F least = Positive ? set(0.0f) : low;
  store_bytes(p, add(to_int(min(max(x, least), high)), zero_point), add(to_int(min(max(y, least), high)), zero_point));
}

inline float sum(F x) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) x.v[i] = x.v[i] + x.v[i + half];
  return x.v[0];
}
inline float largest(F x) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) x.v[i] = x.v[i] > x.v[i + half] ? x.v[i] : x.v[i + half];
  return x.v[0];
}
inline float smallest(F x) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) x.v[i] = x.v[i] < x.v[i + half] ? x.v[i] : x.v[i + half];
  return x.v[0];
}

}  // namespace OI8_NAMESPACE
