// The epilogue of a convolution: int32 sums of 32 output channels to float32, uint8 or both, in the order of numerics_conv.conv: scale,
// bias, activation, residual, final activation. One epilogue serves panels, depthwise kernels and every ISA.
#pragma once

namespace OI8_NAMESPACE {

struct ConvArguments {
  const oi8_instruction *o;
  const oi8_window *w;
  const uint8_t *image;
  int64_t pixel_bytes;
  float scale;
  int32_t zero;
  char *floats, *bytes;  // results, null when absent, and the distance of their rows
  int64_t float_bytes, byte_bytes;
  const char *residual;
  int64_t residual_bytes;
  bool residual_on_grid;  // uint8 instead of float32
};

inline ConvArguments conv_arguments(const oi8_instruction &o, const Context &ctx) {
  const bool dynamic = o.input[1] >= 0;
  auto at = [&](int index) { return index >= 0 ? ctx.value<char>(index) : nullptr; };
  auto distance = [&](int index) { return index >= 0 ? ctx.row_bytes(index) : 0; };
  return {&o,
          o.window,
          ctx.value<uint8_t>(o.input[0]),
          ctx.row_bytes(o.input[0]),
          dynamic ? *ctx.value<float>(o.input[1]) : o.input_scale[0],
          dynamic ? *ctx.value<int32_t>(o.input[2]) : o.input_zero_point,
          at(o.output[0]),
          at(o.output[1]),
          distance(o.output[0]),
          distance(o.output[1]),
          at(o.input[3]),
          distance(o.input[3]),
          o.input[3] >= 0 && o.input_scale[1] > 0.0f};
}

template <int Activation>
inline F activate_with(F x, F slope) {
  if constexpr (Activation == OI8_LEAKY_RELU) return leaky_relu(x, slope);
  if constexpr (Activation == OI8_HARDSWISH) return hardswish(x);
  return activate<Activation>(x);
}

inline __attribute__((noinline)) F activate_any(int activation, F x, F slope) {
  switch (activation) {
    case OI8_RELU: return activate<OI8_RELU>(x);
    case OI8_GELU: return activate<OI8_GELU>(x);
    case OI8_GELU_TANH: return activate<OI8_GELU_TANH>(x);
    case OI8_SILU: return activate<OI8_SILU>(x);
    case OI8_TANH: return activate<OI8_TANH>(x);
    case OI8_LEAKY_RELU: return leaky_relu(x, slope);
    case OI8_HARDSWISH: return hardswish(x);
    default: return x;
  }
}

// What the epilogues of all channels share.
struct ConvEnd {
  const ConvArguments &args;
  Grid grid;
  F slope, residual_scale;
  I residual_zero;

  explicit ConvEnd(const ConvArguments &arguments)
      : args(arguments), grid(arguments.bytes ? arguments.o->output_scale : 1.0f, arguments.o->output_zero_point), slope(set(arguments.o->parameter)), residual_scale(set(arguments.o->input_scale[1])), residual_zero(set_int(arguments.o->residual_zero_point)) {}

  inline F dequantized(const uint8_t *residual) const { return mul(to_float(sub(load_ubytes(residual), residual_zero)), residual_scale); }
};

// For `width` (at most 32) output channels from `channel` on; `sum` is where their weight sums lie; the sums are those of the
// pixels minus `offset`.
template <int Activation>
class ConvEpilogue {
 public:
  ConvEpilogue() = default;
  ConvEpilogue(const ConvEnd &end, int channel, int width, int sum, int32_t offset) : end_(&end), channel_(channel), width_(width) {
    const oi8_instruction &o = *end.args.o;
    for (int h = 0; h < 2; h++) {
      const int n = width - h * 16 < 0 ? 0 : width - h * 16;
      factor_[h] = mul(set(end.args.scale), load(o.weight_scale + channel + h * 16, n));
      correction_[h] = mul(set_int(end.args.zero - offset), load(o.weight_sum + sum + h * 16));
      bias_[h] = o.bias ? load(o.bias + channel + h * 16, n) : set(-0.0f);  // x + -0.0 is x to the bit
    }
    const ConvArguments &args = end.args;
    whole_ = nullptr;
    if (width == 32 && (args.w->final == OI8_NONE || args.w->final == OI8_RELU)) whole_ = !args.residual ? whole_for<Residual::none>(args) : args.residual_on_grid ? whole_for<Residual::bytes>(args) : whole_for<Residual::floats>(args);
  }

  // Results of `count` rows from `row` on; the sums of a row are 32 integers.
  inline void rows(const int32_t *sums, int64_t row, int count) const {
    if (whole_) return whole_(*this, *end_, sums, row, count);
    for (int i = 0; i < count; i++, sums += 32, row++)
      if (width_ == 32) {
        half<0>(sums, row, Whole());
        half<1>(sums + 16, row, Whole());
      } else {
        half<0>(sums, row, width_ < 16 ? width_ : 16);
        if (width_ > 16) half<1>(sums + 16, row, width_ - 16);
      }
  }

 private:
  enum class Residual { none, bytes, floats };

  using Whole32 = void (*)(const ConvEpilogue &, const ConvEnd &, const int32_t *, int64_t, int);

  // For whole panels that end with nothing or a ReLU, which is then the least byte of the grid.
  template <Residual Added>
  static Whole32 whole_for(const ConvArguments &args) {
    constexpr bool positive = Activation == OI8_RELU && Added == Residual::none;
    if (!args.bytes) return whole<Added, false, false>;
    if constexpr (!positive)
      if (args.w->final == OI8_NONE) return whole<Added, true, false>;
    return whole<Added, true, true>;
  }

  // `__restrict`: results are stored neither here nor there, so that constants stay in registers.
  template <Residual Added, bool ToBytes, bool Positive>
  static void whole(const ConvEpilogue &__restrict it, const ConvEnd &__restrict end, const int32_t *sums, int64_t row, int count) {
    constexpr int activation = ToBytes && Added == Residual::none && Activation == OI8_RELU ? OI8_NONE : Activation;
    const ConvArguments args = end.args;
    const bool floats = args.floats != nullptr, cut = activation != Activation || args.w->final == OI8_RELU;
    const int64_t channel = it.channel_;
    for (int i = 0; i < count; i++, sums += 32, row++) {
      F y0 = activate_with<activation>(add(mul(to_float(sub(load(sums), it.correction_[0])), it.factor_[0]), it.bias_[0]), end.slope);
      F y1 = activate_with<activation>(add(mul(to_float(sub(load(sums + 16), it.correction_[1])), it.factor_[1]), it.bias_[1]), end.slope);
      if constexpr (Added == Residual::bytes) {
        const uint8_t *residual = reinterpret_cast<const uint8_t *>(args.residual + row * args.residual_bytes) + channel;
        y0 = add(y0, end.dequantized(residual)), y1 = add(y1, end.dequantized(residual + 16));
      } else if constexpr (Added == Residual::floats) {
        const float *residual = reinterpret_cast<const float *>(args.residual + row * args.residual_bytes) + channel;
        y0 = add(y0, load(residual)), y1 = add(y1, load(residual + 16));
      }
      if (!ToBytes || floats) {
        const F zero = set(0.0f);
        float *out = reinterpret_cast<float *>(args.floats + row * args.float_bytes) + channel;
        store(out, cut ? max(y0, zero) : y0);
        store(out + 16, cut ? max(y1, zero) : y1);
      }
      if constexpr (ToBytes) end.grid.template store<Positive>(reinterpret_cast<uint8_t *>(args.bytes + row * args.byte_bytes) + channel, y0, y1);
    }
  }

  template <int H, class Count>
  inline __attribute__((always_inline)) void half(const int32_t *sums, int64_t row, Count n) const {
    const ConvEnd &end = *end_;
    const ConvArguments &args = end.args;
    const int64_t column = channel_ + H * 16;
    F y = mul(to_float(sub(load(sums), correction_[H])), factor_[H]);
    y = activate_with<Activation>(add(y, bias_[H]), end.slope);
    if (args.residual_on_grid) y = add(y, end.dequantized(reinterpret_cast<const uint8_t *>(args.residual + row * args.residual_bytes) + column));
    else if (args.residual) y = add(y, load(reinterpret_cast<const float *>(args.residual + row * args.residual_bytes) + column, n));
    if (args.w->final == OI8_RELU) y = max(y, set(0.0f));
    else if (args.w->final != OI8_NONE) y = activate_any(args.w->final, y, end.slope);
    if (args.floats) store(reinterpret_cast<float *>(args.floats + row * args.float_bytes) + column, y, n);
    if (args.bytes) store_bytes(reinterpret_cast<uint8_t *>(args.bytes + row * args.byte_bytes) + column, end.grid(y), n);
  }

  const ConvEnd *end_;
  Whole32 whole_;
  int channel_, width_;
  F factor_[2], bias_[2];
  I correction_[2];
};

}  // namespace OI8_NAMESPACE
