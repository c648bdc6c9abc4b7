// The epilogue of a convolution: int32 sums of 32 output channels to float32, uint8 or both, in the
// order of numerics.conv: scale, bias, activation, residual, final activation. One epilogue
// serves panels, depthwise kernels and every ISA.
#pragma once
#include "context.h"
#include "math.h"

namespace OI8_NAMESPACE {

struct ConvArguments {
  const oi8_conv *instruction;
  const oi8_window *window;
  const uint8_t *image;
  int64_t pixel_bytes;
  float scale;
  int32_t zero;
  char *floats, *bytes;  // results, null when absent, and the distance of their rows
  int64_t float_bytes, byte_bytes;
  const char *residual;
  int64_t residual_bytes;
  bool residual_quantized;  // uint8 instead of float32
};

inline ConvArguments conv_arguments(const oi8_conv &instruction, const Context &context) {
  const bool dynamic = instruction.head.input[OI8_CONV_SCALE] >= 0;
  auto address = [&](int index) { return index >= 0 ? context.value<char>(index) : nullptr; };
  auto distance = [&](int index) { return index >= 0 ? context.row_bytes(index) : 0; };
  return {&instruction,
          &instruction.window,
          context.value<uint8_t>(instruction.head.input[OI8_CONV_IMAGE]),
          context.row_bytes(instruction.head.input[OI8_CONV_IMAGE]),
          dynamic ? *context.value<float>(instruction.head.input[OI8_CONV_SCALE])
                  : instruction.input_scale,
          dynamic ? *context.value<int32_t>(instruction.head.input[OI8_CONV_ZERO_POINT])
                  : instruction.input_zero_point,
          address(instruction.head.output[OI8_CONV_FLOATS]),
          address(instruction.head.output[OI8_CONV_BYTES]),
          distance(instruction.head.output[OI8_CONV_FLOATS]),
          distance(instruction.head.output[OI8_CONV_BYTES]),
          address(instruction.head.input[OI8_CONV_RESIDUAL]),
          distance(instruction.head.input[OI8_CONV_RESIDUAL]),
          instruction.head.input[OI8_CONV_RESIDUAL] >= 0 && instruction.residual_scale > 0.0f};
}

template <int Activation>
inline Floats activate_with(Floats x, Floats slope) {
  if constexpr (Activation == OI8_LEAKY_RELU) return leaky_relu(x, slope);
  if constexpr (Activation == OI8_HARDSWISH) return hardswish(x);
  return activate<Activation>(x);
}

inline __attribute__((noinline)) Floats activate_any(int activation, Floats x, Floats slope) {
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
  Quantization quantization;
  Floats slope, residual_scale;
  Ints residual_zero;

  explicit ConvEnd(const ConvArguments &arguments)
      : args(arguments),
        quantization(arguments.bytes ? arguments.instruction->output_scale : 1.0f,
                     arguments.instruction->output_zero_point),
        slope(set(arguments.instruction->slope)),
        residual_scale(set(arguments.instruction->residual_scale)),
        residual_zero(set_int(arguments.instruction->residual_zero_point)) {}

  inline Floats dequantized(const uint8_t *residual) const {
    return mul(to_float(sub(load_ubytes(residual), residual_zero)), residual_scale);
  }
};

// For `width` (at most 32) output channels from `channel` on; `sum` is where their weight sums lie;
// the sums are those of the pixels minus `offset`.
template <int Activation>
class ConvEpilogue {
 public:
  ConvEpilogue() = default;
  ConvEpilogue(const ConvEnd &end, int channel, int width, int sum, int32_t offset)
      : end_(&end), channel_(channel), width_(width) {
    const oi8_conv &instruction = *end.args.instruction;
    for (int half = 0; half < 2; half++) {
      const int count = width - half * 16 < 0 ? 0 : width - half * 16;
      factor_[half] =
          mul(set(end.args.scale), load(instruction.weight_scale + channel + half * 16, count));
      correction_[half] =
          mul(set_int(end.args.zero - offset), load(instruction.weight_sum + sum + half * 16));
      bias_[half] = instruction.bias ? load(instruction.bias + channel + half * 16, count)
                                     : set(-0.0f);  // x + -0.0 is x to the bit
    }
    const ConvArguments &args = end.args;
    whole_ = nullptr;
    if (width == 32 && (args.instruction->final_activation == OI8_NONE ||
                        args.instruction->final_activation == OI8_RELU))
      whole_ = !args.residual            ? whole_for<Residual::none>(args)
               : args.residual_quantized ? whole_for<Residual::bytes>(args)
                                         : whole_for<Residual::floats>(args);
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

  // For whole panels that end with nothing or a ReLU, which is then the zero point as the least
  // byte.
  template <Residual Added>
  static Whole32 whole_for(const ConvArguments &args) {
    constexpr bool positive = Activation == OI8_RELU && Added == Residual::none;
    if (!args.bytes) return whole<Added, false, false>;
    if constexpr (!positive)
      if (args.instruction->final_activation == OI8_NONE) return whole<Added, true, false>;
    return whole<Added, true, true>;
  }

  // `__restrict`: results are stored neither here nor there, so that constants stay in registers.
  template <Residual Added, bool ToBytes, bool Positive>
  static void whole(const ConvEpilogue &__restrict self, const ConvEnd &__restrict end,
                    const int32_t *sums, int64_t row, int count) {
    constexpr int activation =
        ToBytes && Added == Residual::none && Activation == OI8_RELU ? OI8_NONE : Activation;
    const ConvArguments args = end.args;
    const bool floats = args.floats != nullptr,
               cut = activation != Activation || args.instruction->final_activation == OI8_RELU;
    const int64_t channel = self.channel_;
    for (int i = 0; i < count; i++, sums += 32, row++) {
      Floats low = activate_with<activation>(
          add(mul(to_float(sub(load(sums), self.correction_[0])), self.factor_[0]), self.bias_[0]),
          end.slope);
      Floats high = activate_with<activation>(
          add(mul(to_float(sub(load(sums + 16), self.correction_[1])), self.factor_[1]),
              self.bias_[1]),
          end.slope);
      if constexpr (Added == Residual::bytes) {
        const uint8_t *residual =
            reinterpret_cast<const uint8_t *>(args.residual + row * args.residual_bytes) + channel;
        low = add(low, end.dequantized(residual)), high = add(high, end.dequantized(residual + 16));
      } else if constexpr (Added == Residual::floats) {
        const float *residual =
            reinterpret_cast<const float *>(args.residual + row * args.residual_bytes) + channel;
        low = add(low, load(residual)), high = add(high, load(residual + 16));
      }
      if (!ToBytes || floats) {
        const Floats zero = set(0.0f);
        float *out = reinterpret_cast<float *>(args.floats + row * args.float_bytes) + channel;
        store(out, cut ? max(low, zero) : low);
        store(out + 16, cut ? max(high, zero) : high);
      }
      if constexpr (ToBytes)
        end.quantization.template store<Positive>(
            reinterpret_cast<uint8_t *>(args.bytes + row * args.byte_bytes) + channel, low, high);
    }
  }

  template <int Half, class Count>
  inline __attribute__((always_inline)) void half(const int32_t *sums, int64_t row,
                                                  Count count) const {
    const ConvEnd &end = *end_;
    const ConvArguments &args = end.args;
    const int64_t column = channel_ + Half * 16;
    Floats values = mul(to_float(sub(load(sums), correction_[Half])), factor_[Half]);
    values = activate_with<Activation>(add(values, bias_[Half]), end.slope);
    if (args.residual_quantized)
      values = add(values, end.dequantized(reinterpret_cast<const uint8_t *>(
                                               args.residual + row * args.residual_bytes) +
                                           column));
    else if (args.residual)
      values = add(
          values,
          load(reinterpret_cast<const float *>(args.residual + row * args.residual_bytes) + column,
               count));
    if (args.instruction->final_activation == OI8_RELU)
      values = max(values, set(0.0f));
    else if (args.instruction->final_activation != OI8_NONE)
      values = activate_any(args.instruction->final_activation, values, end.slope);
    if (args.floats)
      store(reinterpret_cast<float *>(args.floats + row * args.float_bytes) + column, values,
            count);
    if (args.bytes)
      store_bytes(reinterpret_cast<uint8_t *>(args.bytes + row * args.byte_bytes) + column,
                  end.quantization(values), count);
  }

  const ConvEnd *end_;
  Whole32 whole_;
  int channel_, width_;
  Floats factor_[2], bias_[2];
  Ints correction_[2];
};

}  // namespace OI8_NAMESPACE
