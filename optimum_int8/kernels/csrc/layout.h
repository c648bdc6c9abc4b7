// How int8 weights lie in memory: as panels. All that reads or writes one counts with these names.
//
//   weight [N][K] of a linear  ->  panels [ceil(N / 32)][ceil(K / 64)][2][16][16][4], zero padded:
//                                  panel, step, half, group, channel, input
//
//   one step of a panel: 32 output channels by 64 inputs, in two halves of 16 channels
//
//                channel 0       channel 1             channel 15
//     group 0  | k0 k1 k2 k3  |  k0 k1 k2 k3  |  ...  |  k0 k1 k2 k3 |   64 bytes: an AVX-512
//     group 1  | k4 k5 k6 k7  |  k4 k5 k6 k7  |  ...  |  k4 k5 k6 k7 |   register, a cache line,
//       ...                                                              a row of an AMX tile
//     group 15 | k60 ... k63  |  k60 ... k63  |  ...  |  k60 ... k63 |
//
//     a half: 16 groups, 1024 bytes, an AMX tile
//     a step: half 0 (channels 0 to 15), half 1 (channels 16 to 31), 2048 bytes
//     a panel: step 0 | step 1 | ... | step S - 1
//
// A group holds four inputs of each channel side by side, as vpdpbusd and tdpbusd multiply them;
// the same bytes widen to what vpmaddwd takes. Panels of several linears that share an input may
// follow one another: they are the panels of one linear.
#pragma once
#include <cstdint>

#include "isa/namespace.h"

namespace OI8_NAMESPACE {

constexpr int group_inputs = 4;
constexpr int half_columns = 16;  // output channels of a half; lanes of a vector
constexpr int panel_columns = 2 * half_columns;
constexpr int step_groups = 16;
constexpr int step_inputs = step_groups * group_inputs;

constexpr int group_bytes = half_columns * group_inputs;
constexpr int half_bytes = step_groups * group_bytes;
constexpr int step_bytes = 2 * half_bytes;

static_assert(group_bytes == 64, "tiles load and prefetch a group as one line of the cache");
static_assert(half_bytes == 1024, "a half is one tile of AMX: 16 rows of 64 bytes");
static_assert(step_inputs == 64, "rows of uint8 are padded to steps of 64 (kernels/packing.py)");

// Each keeps the type of its argument.
template <class Integer>
constexpr Integer steps_of(Integer inputs) {
  return (inputs + (step_inputs - 1)) / step_inputs;
}
template <class Integer>
constexpr Integer panels_of(Integer columns) {
  return (columns + (panel_columns - 1)) / panel_columns;
}

// Rounded up to whole halves (vectors), panels, steps.
constexpr int64_t up_to_lanes(int64_t count) {
  return (count + (half_columns - 1)) / half_columns * half_columns;
}
constexpr int64_t up_to_panel(int64_t columns) {
  return (columns + (panel_columns - 1)) / panel_columns * panel_columns;
}
constexpr int64_t up_to_step(int64_t inputs) {
  return (inputs + (step_inputs - 1)) / step_inputs * step_inputs;
}

// Where a half of a step begins in its panel.
template <class Integer>
constexpr Integer half_at(Integer step, int half) {
  return (step * 2 + half) * half_bytes;
}

// Where a group begins, in the half that begins at `half` and those of the steps that follow; and
// the weights of an input, which is the first of its group.
template <class Byte, class Integer>
inline Byte *group_at(Byte *half, Integer group) {
  return half + group / step_groups * step_bytes + group % step_groups * group_bytes;
}
template <class Byte, class Integer>
inline Byte *input_at(Byte *half, Integer input) {
  return half + input / step_inputs * step_bytes + input % step_inputs * half_columns;
}

}  // namespace OI8_NAMESPACE
