// ROTARY: heads of float32 rows, from element `column` of their rows on, turned by the angles of
// their row: pairs of elements that lie half of `turned` apart, or next to each other. Elements
// from `turned` on are copied.
//
// Rounding: two products and their sum or difference in float32, each rounded once
// (numerics.rotary). Any number of heads and rows, any even `turned`; nothing needs alignment. The
// rows of cosines and sines may be shared by the batch (periodic). Each thread owns a share of the
// rows.
#pragma once
#include <cstring>

#include "../isa/target.h"
#include "context.h"

namespace OI8_NAMESPACE {

struct Angles {
  const float *cosines, *sines;
};

inline void turn_halves(const float *source, float *target, int turned, Angles angles) {
  const int half = turned / 2;
  by_16(half, [&](int i, auto count) {
    const Floats first = load(source + i, count), second = load(source + half + i, count);
    store(target + i,
          sub(mul(first, load(angles.cosines + i, count)),
              mul(second, load(angles.sines + i, count))),
          count);
    store(target + half + i,
          add(mul(second, load(angles.cosines + half + i, count)),
              mul(first, load(angles.sines + half + i, count))),
          count);
  });
}

alignas(64) constexpr float neighbour_signs[16] = {-1, 1, -1, 1, -1, 1, -1, 1,
                                                   -1, 1, -1, 1, -1, 1, -1, 1};

// In vectors too: g++ 12 makes one fused instruction of such sums and differences of products,
// whatever it is told about contraction.
inline void turn_neighbours(const float *source, float *target, int turned, Angles angles) {
  by_16(turned, [&](int i, auto count) {
    alignas(64) float exchanged[16] = {};
    for (int lane = 0; lane < count; lane++) exchanged[lane] = source[i + (lane ^ 1)];
    const Floats rotated = mul(load(exchanged), load(neighbour_signs));
    store(target + i,
          add(mul(load(source + i, count), load(angles.cosines + i, count)),
              mul(rotated, load(angles.sines + i, count))),
          count);
  });
}

inline void rotary(const oi8_rotary &instruction, const Context &context) {
  const Range mine = context.share(context.rows(instruction.head));
  const int head = instruction.columns / instruction.heads, turned = instruction.turned;
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const float *source =
        context.row<float>(instruction.head.input[OI8_ROTARY_FLOATS], row) + instruction.column;
    float *target = context.row<float>(instruction.head.output[OI8_ROTARY_RESULT], row);
    const Angles angles = {context.row<float>(instruction.head.input[OI8_ROTARY_COSINES], row),
                           context.row<float>(instruction.head.input[OI8_ROTARY_SINES], row)};
    for (int index = 0; index < instruction.heads; index++, source += head, target += head) {
      if (instruction.interleaved)
        turn_neighbours(source, target, turned, angles);
      else
        turn_halves(source, target, turned, angles);
      if (turned < head)
        std::memcpy(target + turned, source + turned,
                    static_cast<size_t>(head - turned) * sizeof(float));
    }
  }
}

}  // namespace OI8_NAMESPACE
