// Which groups of four inputs are multiplied together, for clamped_avx2.h: so that as few weights
// as possible have to be clamped.
//
// Two groups fit each other where of none of 16 channels two weights of one and the two of the
// other sum up to more than 128 on one side of zero. Within a span of steps each group, the
// heaviest first, takes the one left that fits in the most places: a greedy matching.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../layout.h"

namespace OI8_NAMESPACE {

constexpr int pairing_steps = 8;  // of a span; its rows and half a panel stay in L1 together
constexpr int span_groups = pairing_steps * 16;

namespace pairing {

// Of one group by 16 channels: what two weights of a channel sum up to above zero, and below, in
// any order.
struct Sides {
  __m256i above, below;

  explicit Sides(const int8_t *group) {
    const __m256i ones = _mm256_set1_epi8(1), zero = _mm256_setzero_si256();
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(group)),
                  y = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(group + 32));
    const auto sum = [&](__m256i values) {
      return _mm256_maddubs_epi16(values, ones);
    };  // up to 127 each: signed or not is the same
    above = _mm256_packus_epi16(sum(_mm256_max_epi8(x, zero)), sum(_mm256_max_epi8(y, zero)));
    below = _mm256_packus_epi16(sum(_mm256_max_epi8(_mm256_sub_epi8(zero, x), zero)),
                                sum(_mm256_max_epi8(_mm256_sub_epi8(zero, y), zero)));
  }
  Sides() = default;

  bool empty() const {
    return _mm256_testz_si256(_mm256_or_si256(above, below), _mm256_set1_epi8(-1));
  }
  // What is beyond half of what fits.
  int weight() const {
    const __m256i half = _mm256_set1_epi8(64), zero = _mm256_setzero_si256();
    const __m256i sums = _mm256_add_epi64(_mm256_sad_epu8(_mm256_subs_epu8(above, half), zero),
                                          _mm256_sad_epu8(_mm256_subs_epu8(below, half), zero));
    const __m128i two =
        _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return static_cast<int>(_mm_cvtsi128_si32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))));
  }
};

// In how many places two groups do not fit.
inline int conflicts(const Sides &one, const Sides &other) {
  const __m256i limit = _mm256_set1_epi8(char(128));
  const auto fitting = [&](__m256i x, __m256i y) {
    const __m256i sum = _mm256_adds_epu8(x, y);
    return __builtin_popcount(static_cast<unsigned>(
        _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(sum, limit), limit))));
  };
  return 64 - fitting(one.above, other.above) - fitting(one.below, other.below);
}

}  // namespace pairing

// Pairs the groups of half a panel, up to `pairing_steps` steps of it: writes for each group of the
// result the one it was, two by two, and -1 for none. Groups without weights are left out, so that
// all pairs come first.
inline void pair_groups(const int8_t *half, int steps, int *order) {
  pairing::Sides sides[span_groups];
  struct Candidate {
    int group, weight;
  } left[span_groups];
  int count = 0, written = 0;
  for (int group = 0; group < steps * 16; group++) {
    sides[group] = pairing::Sides(group_at(half, group));
    if (!sides[group].empty()) left[count++] = {group, sides[group].weight()};
  }
  std::stable_sort(left, left + count, [](const Candidate &one, const Candidate &other) {
    return one.weight > other.weight;
  });
  Candidate *const end = left + count;
  for (Candidate *first = left; first < end; first++) {
    if (first->group < 0) continue;
    Candidate *best = nullptr;
    int least = 65;
    for (Candidate *other = first + 1; other < end && least > 0; other++) {
      if (other->group < 0) continue;
      const int found = pairing::conflicts(sides[first->group], sides[other->group]);
      if (found < least) least = found, best = other;
    }
    order[written++] = first->group;
    order[written++] = best ? best->group : -1;
    if (best) best->group = -1;
  }
  while (written < steps * 16) order[written++] = -1;
}

}  // namespace OI8_NAMESPACE
