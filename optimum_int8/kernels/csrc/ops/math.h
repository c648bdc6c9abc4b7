// Elementary functions on 16 lanes: the steps of numerics, in its order.
#pragma once
#include "../isa/target.h"
#include "../optimum_int8.h"

namespace OI8_NAMESPACE {

constexpr float LOG2E = 1.44269502f;

inline __attribute__((always_inline)) Floats exp(Floats x) {
  const Floats power = min(max(mul(x, set(LOG2E)), set(-125.0f)), set(126.0f));
  const Floats whole = round(power), fraction = sub(power, whole);
  Floats polynomial = add(mul(fraction, set(0.00132647273f)), set(0.00967151299f));
  polynomial = add(mul(polynomial, fraction), set(0.0555073358f));
  polynomial = add(mul(polynomial, fraction), set(0.240222424f));
  polynomial = add(mul(polynomial, fraction), set(0.693147004f));
  polynomial = add(mul(polynomial, fraction), set(1.0f));
  return scale_exponent(polynomial, whole);
}

// 255 * 2**t for t <= 0: the weights of a softmax, of which bytes are made.
inline Floats softmax_weight(Floats power_wanted) {
  const Floats power = max(power_wanted, set(-125.0f)), whole = round(power),
               fraction = sub(power, whole);
  Floats polynomial = add(mul(fraction, set(14.0273094f)), set(61.7637978f));
  polynomial = add(mul(polynomial, fraction), set(176.78714f));
  polynomial = add(mul(polynomial, fraction), set(255.0f));
  return scale_exponent(polynomial, whole);
}

// Of `x * (1/2 + p(|x|))`: p is odd and reaches 1/2 at `limit`. Cubic polynomials on eight
// intervals of equal length, power by power.
struct Sigmoidal {
  float limit, intervals;  // per unit of x
  float power[4][8];
};

constexpr Sigmoidal GELU = {4.5f,
                            1.77777553f,
                            {{-9.86380692e-05f, -0.0103293518f, -0.0594866015f, -0.0652444661f,
                              0.0822097287f, 0.293836296f, 0.432706058f, 0.499011159f},
                             {0.400514215f, 0.448625594f, 0.580648184f, 0.597146571f, 0.402951598f,
                              0.175668851f, 0.050548669f, 0.000395128969f},
                             {-0.00745750545f, -0.0843864828f, -0.203702644f, -0.217265114f,
                              -0.131824374f, -0.0503295735f, -0.012713681f, -3.89742963e-05f},
                             {-0.054624375f, -0.0125576174f, 0.0237145983f, 0.0271580853f,
                              0.014598907f, 0.00484347856f, 0.00107016065f, 0.0f}}};

constexpr Sigmoidal GELU_TANH = {
    4.44000006f,
    1.80179954f,
    {{-9.43578634e-05f, -0.00986945257f, -0.0569149181f, -0.0664294139f, 0.0660012215f,
      0.275070429f, 0.426487207f, 0.498426199f},
     {0.400466323f, 0.447061926f, 0.575065196f, 0.597987354f, 0.421557605f, 0.194391087f,
      0.0562750474f, 0.000699681288f},
     {-0.00732791051f, -0.0828502774f, -0.200050429f, -0.217379466f, -0.138859034f, -0.0564507581f,
      -0.014412594f, -7.77522073e-05f},
     {-0.0550023019f, -0.0131406756f, 0.0229567252f, 0.0271592028f, 0.0154844262f, 0.00550379138f,
      0.00123448088f, 0.0f}}};

inline Floats gate(Floats x, const Sigmoidal &function) {
  const Floats size = absolute(x), cut = min(size, set(function.limit));
  const Ints interval = truncate(mul(cut, set(function.intervals)));
  Floats polynomial =
      add(mul(lookup(function.power[3], interval), cut), lookup(function.power[2], interval));
  polynomial = add(mul(polynomial, cut), lookup(function.power[1], interval));
  polynomial = add(mul(polynomial, cut), lookup(function.power[0], interval));
  return add(mul(x, set(0.5f)), mul(size, polynomial));
}

inline Floats gelu(Floats x) { return gate(x, GELU); }

inline Floats gelu_tanh(Floats x) { return gate(x, GELU_TANH); }

inline Floats silu(Floats x) { return div(x, add(exp(sub(set(0.0f), x)), set(1.0f))); }

inline Floats tanh(Floats x) {
  const Floats one = set(1.0f), decay = exp(mul(absolute(x), set(-2.0f)));
  return copy_sign(div(sub(one, decay), add(one, decay)), x);
}

inline Floats leaky_relu(Floats x, Floats slope) {
  return add(max(x, set(0.0f)), mul(min(x, set(0.0f)), slope));
}

inline Floats hardswish(Floats x) {
  return mul(x, min(max(add(mul(x, set(0.166666667f)), set(0.5f)), set(0.0f)), set(1.0f)));
}

template <int Activation>
inline Floats activate(Floats x) {
  if constexpr (Activation == OI8_RELU) return max(x, set(0.0f));
  if constexpr (Activation == OI8_GELU) return gelu(x);
  if constexpr (Activation == OI8_GELU_TANH) return gelu_tanh(x);
  if constexpr (Activation == OI8_SILU) return silu(x);
  if constexpr (Activation == OI8_TANH) return tanh(x);
  return x;
}

// Calls body with the activation as a constant.
template <class Body>
inline void by_activation(int activation, Body &&body) {
  switch (activation) {
    case OI8_RELU: return body(std::integral_constant<int, OI8_RELU>());
    case OI8_GELU: return body(std::integral_constant<int, OI8_GELU>());
    case OI8_GELU_TANH: return body(std::integral_constant<int, OI8_GELU_TANH>());
    case OI8_SILU: return body(std::integral_constant<int, OI8_SILU>());
    case OI8_TANH: return body(std::integral_constant<int, OI8_TANH>());
    case OI8_LEAKY_RELU: return body(std::integral_constant<int, OI8_LEAKY_RELU>());
    case OI8_HARDSWISH: return body(std::integral_constant<int, OI8_HARDSWISH>());
    default: return body(std::integral_constant<int, OI8_NONE>());
  }
}

// Constants of a quantization to uint8: q = clamp(round(x / scale) + zero_point, 0, 255). NaN gives
// 0.
struct Quantization {
  Floats inverse, low, high;
  Ints zero_point;
  Quantization(float scale, int32_t zero) : Quantization(set(1.0f / scale), zero) {}
  Quantization(Floats inverse_scale, int32_t zero)
      : inverse(inverse_scale),
        low(set(-static_cast<float>(zero))),
        high(set(255.0f - zero)),
        zero_point(set_int(zero)) {}
  inline Ints operator()(Floats x) const {
    return add(to_int(min(max(mul(x, inverse), low), high)), zero_point);
  }
  // 32 values; where `Positive`, those of max(x, 0).
  template <bool Positive = false>
  inline void store(uint8_t *target, Floats x, Floats y) const {
    store_quantized<Positive>(target, mul(x, inverse), mul(y, inverse), low, high, zero_point);
  }
};

}  // namespace OI8_NAMESPACE
