// Elementary functions on 16 lanes: the steps of numerics.py, in its order.
#pragma once

namespace OI8_NAMESPACE {

inline __attribute__((always_inline)) F exp(F x) {
  const F t = min(max(mul(x, set(1.44269502f)), set(-125.0f)), set(126.0f));
  const F n = round(t), f = sub(t, n);
  F p = add(mul(f, set(0.00132647273f)), set(0.00967151299f));
  p = add(mul(p, f), set(0.0555073358f));
  p = add(mul(p, f), set(0.240222424f));
  p = add(mul(p, f), set(0.693147004f));
  p = add(mul(p, f), set(1.0f));
  return scale_exponent(p, to_int(n));
}

inline F gelu(F x) {
  const F c = min(max(x, set(-4.50001192f)), set(4.50001192f));
  const F u = sub(mul(mul(c, c), set(0.0987654328f)), set(1.0f));
  const F t = mul(u, u);
  F even = add(mul(t, set(0.00422253693f)), set(0.0108316699f));
  F odd = add(mul(t, set(-0.000940636732f)), set(-0.00779797975f));
  even = add(mul(even, t), set(0.0282897186f));
  odd = add(mul(odd, t), set(-0.0175144151f));
  even = add(mul(even, t), set(0.0547214262f));
  odd = add(mul(odd, t), set(-0.040429201f));
  even = add(mul(even, t), set(0.156904221f));
  odd = add(mul(odd, t), set(-0.0771762282f));
  const F q = add(mul(odd, u), even);
  return mul(x, add(mul(c, q), set(0.5f)));
}

inline F silu(F x) { return div(x, add(exp(sub(set(0.0f), x)), set(1.0f))); }

inline F gelu_tanh(F x) {
  const F u = mul(x, add(mul(mul(x, x), set(0.0713548139f)), set(1.59576917f)));
  return div(x, add(exp(sub(set(0.0f), u)), set(1.0f)));
}

inline F tanh(F x) {
  const F one = set(1.0f), e = exp(mul(absolute(x), set(-2.0f)));
  return copy_sign(div(sub(one, e), add(one, e)), x);
}

inline F leaky_relu(F x, F slope) { return add(max(x, set(0.0f)), mul(min(x, set(0.0f)), slope)); }

inline F hardswish(F x) { return mul(x, min(max(add(mul(x, set(0.166666667f)), set(0.5f)), set(0.0f)), set(1.0f))); }

template <int Activation>
inline F activate(F x) {
  if constexpr (Activation == OI8_RELU) return max(x, set(0.0f));
  if constexpr (Activation == OI8_GELU) return gelu(x);
  if constexpr (Activation == OI8_GELU_TANH) return gelu_tanh(x);
  if constexpr (Activation == OI8_SILU) return silu(x);
  if constexpr (Activation == OI8_TANH) return tanh(x);
  return x;
}

// Constants of one uint8 grid: q = clamp(round(x / scale) + zero_point, 0, 255). NaN gives 0.
struct Grid {
  F inverse, low, high;
  I zero_point;
  Grid(float scale, int32_t zero) : Grid(set(1.0f / scale), zero) {}
  Grid(F inverse_scale, int32_t zero) : inverse(inverse_scale), low(set(-static_cast<float>(zero))), high(set(255.0f - zero)), zero_point(set_int(zero)) {}
  inline I operator()(F x) const { return add(to_int(min(max(mul(x, inverse), low), high)), zero_point); }
  // 32 values; where `Positive`, those of max(x, 0).
  template <bool Positive = false>
  inline void store(uint8_t *p, F x, F y) const {
    store_quantized<Positive>(p, mul(x, inverse), mul(y, inverse), low, high, zero_point);
  }
};

}  // namespace OI8_NAMESPACE
