// 16 float32 or int32 lanes in plain C++: the same results as the SIMD headers, for any CPU and for
// reading.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "namespace.h"

namespace OI8_NAMESPACE {

struct Floats {
  float lane[16];
};
struct Ints {
  int32_t lane[16];
};

template <class Vector, class Lane>
inline Vector lanes(Lane lane_of) {
  Vector result;
  for (int i = 0; i < 16; i++) result.lane[i] = lane_of(i);
  return result;
}

inline Floats set(float x) {
  return lanes<Floats>([=](int) { return x; });
}
inline Ints set_int(int32_t x) {
  return lanes<Ints>([=](int) { return x; });
}
inline Floats load(const float *source) {
  return lanes<Floats>([=](int i) { return source[i]; });
}
inline Floats load(const float *source, int count) {
  return lanes<Floats>([=](int i) { return i < count ? source[i] : 0.0f; });
}
inline Ints load(const int32_t *source) {
  return lanes<Ints>([=](int i) { return source[i]; });
}
inline Ints load_bytes(const int8_t *source, int count) {
  return lanes<Ints>([=](int i) { return i < count ? source[i] : 0; });
}
inline Ints load_ubytes(const uint8_t *source) {
  return lanes<Ints>([=](int i) { return source[i]; });
}
inline void store(int32_t *target, const Ints &x) {
  for (int i = 0; i < 16; i++) target[i] = x.lane[i];
}
inline void store(float *target, Floats x, int count = 16) {
  for (int i = 0; i < 16 && i < count; i++) target[i] = x.lane[i];
}
inline void store_bytes(uint8_t *target, Ints x, int count = 16) {
  for (int i = 0; i < 16 && i < count; i++) target[i] = static_cast<uint8_t>(x.lane[i]);
}
inline void store_bytes(uint8_t *target, const Ints &x, const Ints &y) {
  store_bytes(target, x);
  store_bytes(target + 16, y);
}
inline void store_bytes(uint8_t *target, const Ints &first, const Ints &second, const Ints &third,
                        const Ints &fourth) {
  store_bytes(target, first, second), store_bytes(target + 32, third, fourth);
}

inline Floats add(const Floats &x, const Floats &y) {
  return lanes<Floats>([&](int i) { return x.lane[i] + y.lane[i]; });
}
inline Floats sub(const Floats &x, const Floats &y) {
  return lanes<Floats>([&](int i) { return x.lane[i] - y.lane[i]; });
}
inline Floats mul(const Floats &x, const Floats &y) {
  return lanes<Floats>([&](int i) { return x.lane[i] * y.lane[i]; });
}
inline Floats div(const Floats &x, const Floats &y) {
  return lanes<Floats>([&](int i) { return x.lane[i] / y.lane[i]; });
}
// x * y + sum, rounded once. The product is exact in double; where the sum lies between two floats
// there, or is tiny, it is rounded anew.
inline Floats multiply_add(const Floats &x, const Floats &y, const Floats &sum) {
  Floats result;
  bool rare = false;
  for (int i = 0; i < 16; i++) {
    const double exact = static_cast<double>(x.lane[i]) * static_cast<double>(y.lane[i]) +
                         static_cast<double>(sum.lane[i]);
    uint64_t bits;
    std::memcpy(&bits, &exact, 8);
    rare |= (bits & 0x1fffffff) == 0x10000000 || (std::fabs(exact) < 0x1p-126 && exact != 0.0);
    result.lane[i] = static_cast<float>(exact);
  }
  if (rare)
    for (int i = 0; i < 16; i++) result.lane[i] = std::fmaf(x.lane[i], y.lane[i], sum.lane[i]);
  return result;
}
inline Floats max(const Floats &x, const Floats &y) {
  return lanes<Floats>([&](int i) { return x.lane[i] > y.lane[i] ? x.lane[i] : y.lane[i]; });
}
inline Floats min(const Floats &x, const Floats &y) {
  return lanes<Floats>([&](int i) { return x.lane[i] < y.lane[i] ? x.lane[i] : y.lane[i]; });
}
inline Floats round(const Floats &x) {
  return lanes<Floats>([&](int i) { return std::nearbyintf(x.lane[i]); });
}
inline Floats to_float(const Ints &x) {
  return lanes<Floats>([&](int i) { return static_cast<float>(x.lane[i]); });
}
inline Ints to_int(const Floats &x) {
  return lanes<Ints>([&](int i) { return static_cast<int32_t>(std::nearbyintf(x.lane[i])); });
}
inline Ints truncate(const Floats &x) {
  return lanes<Ints>([&](int i) { return static_cast<int32_t>(x.lane[i]); });
}
inline Floats lookup(const float (&table)[8], const Ints &index) {
  return lanes<Floats>([&](int i) { return table[index.lane[i]]; });
}
// int32 wraps around like the SIMD instructions do
inline Ints add(const Ints &x, const Ints &y) {
  return lanes<Ints>([&](int i) {
    return static_cast<int32_t>(static_cast<uint32_t>(x.lane[i]) +
                                static_cast<uint32_t>(y.lane[i]));
  });
}
inline Ints sub(const Ints &x, const Ints &y) {
  return lanes<Ints>([&](int i) {
    return static_cast<int32_t>(static_cast<uint32_t>(x.lane[i]) -
                                static_cast<uint32_t>(y.lane[i]));
  });
}
inline Ints mul(const Ints &x, const Ints &y) {
  return lanes<Ints>([&](int i) {
    return static_cast<int32_t>(static_cast<uint32_t>(x.lane[i]) *
                                static_cast<uint32_t>(y.lane[i]));
  });
}
// sum[i] + x[i] * w[2 * i] + y[i] * w[2 * i + 1]
inline Ints add_products(const Ints &sum, const uint8_t *x, const uint8_t *y,
                         const int16_t *weights) {
  return lanes<Ints>(
      [&](int i) { return sum.lane[i] + x[i] * weights[2 * i] + y[i] * weights[2 * i + 1]; });
}
inline Floats scale_exponent(const Floats &x, const Floats &exponent) {
  return lanes<Floats>([&](int i) {
    uint32_t bits;
    std::memcpy(&bits, &x.lane[i], 4);
    bits += static_cast<uint32_t>(static_cast<int32_t>(exponent.lane[i])) << 23;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
  });
}
inline Floats absolute(const Floats &x) {
  return lanes<Floats>([&](int i) { return std::fabs(x.lane[i]); });
}
inline Floats copy_sign(const Floats &magnitude, const Floats &sign) {
  return lanes<Floats>([&](int i) { return std::copysign(magnitude.lane[i], sign.lane[i]); });
}
inline Floats select(const uint8_t *source, int count, const Floats &x, const Floats &y) {
  return lanes<Floats>([&](int i) { return i < count && source[i] ? x.lane[i] : y.lane[i]; });
}
inline Floats keep(int count, const Floats &x, const Floats &y) {
  return lanes<Floats>([&](int i) { return i < count ? x.lane[i] : y.lane[i]; });
}

// x where y is larger than the limit, else 0
inline Floats where_above(const Floats &y, const Floats &limit, const Floats &x) {
  return lanes<Floats>([&](int i) { return y.lane[i] > limit.lane[i] ? x.lane[i] : 0.0f; });
}
// the next bfloat16, half to even
inline Floats to_bfloat16(const Floats &x) {
  return lanes<Floats>([&](int i) {
    uint32_t bits;
    std::memcpy(&bits, &x.lane[i], 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
  });
}
// out[j][i] = the j-th four bytes of row i
inline void transpose_16(const void *rows, int64_t stride, float *out) {
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++)
      std::memcpy(out + j * 16 + i, static_cast<const char *>(rows) + i * stride + j * 4, 4);
}

// Sums of a float tile that stay in registers (ops/float_tile.h), and how many rows it has.
constexpr int float_vectors = 2, float_rows = 2;

// 32 bytes.
struct Bytes {
  uint8_t byte[32];
};
inline Bytes no_bytes() { return {}; }
inline Bytes load_32(const void *source) {
  Bytes x;
  std::memcpy(x.byte, source, 32);
  return x;
}
inline void store_32(void *target, const Bytes &x) { std::memcpy(target, x.byte, 32); }
inline Bytes max(const Bytes &x, const Bytes &y) {
  Bytes result;
  for (int i = 0; i < 32; i++) result.byte[i] = x.byte[i] > y.byte[i] ? x.byte[i] : y.byte[i];
  return result;
}

// 16 sums of bytes in uint16 lanes.
struct Shorts {
  uint16_t lane[16];
};
inline Shorts no_shorts() { return {}; }
inline Shorts add_ubytes(Shorts x, const void *source) {
  for (int i = 0; i < 16; i++)
    x.lane[i] = static_cast<uint16_t>(x.lane[i] + static_cast<const uint8_t *>(source)[i]);
  return x;
}
inline Ints widen(const Shorts &x) {
  return lanes<Ints>([&](int i) { return x.lane[i]; });
}

// The same with a count known to be 16.
using Whole = std::integral_constant<int, 16>;
inline Floats load(const float *source, Whole) { return load(source); }
inline void store(float *target, const Floats &x, Whole) { store(target, x, 16); }
inline void store_bytes(uint8_t *target, const Ints &x, Whole) { store_bytes(target, x, 16); }
inline Floats keep(Whole, const Floats &x, const Floats &) { return x; }

// Two times 16 values as bytes: round(x) + zero_point with x cut to low ... high, where `Positive`
// to 0 ... high. NaN gives low.
template <bool Positive>
inline void store_quantized(uint8_t *target, const Floats &x, const Floats &y, const Floats &low,
                            const Floats &high, const Ints &zero_point) {
  const Floats least = Positive ? set(0.0f) : low;
  store_bytes(target, add(to_int(min(max(x, least), high)), zero_point),
              add(to_int(min(max(y, least), high)), zero_point));
}

inline float sum(Floats x) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) x.lane[i] = x.lane[i] + x.lane[i + half];
  return x.lane[0];
}
inline float largest(Floats x) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++)
      x.lane[i] = x.lane[i] > x.lane[i + half] ? x.lane[i] : x.lane[i + half];
  return x.lane[0];
}
inline float smallest(Floats x) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++)
      x.lane[i] = x.lane[i] < x.lane[i + half] ? x.lane[i] : x.lane[i + half];
  return x.lane[0];
}

}  // namespace OI8_NAMESPACE
