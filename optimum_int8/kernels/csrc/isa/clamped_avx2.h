// Weights that vpmaddubsw multiplies without saturating, for tile_avx2.h.
//
// Two products of bytes, and two of another group of four inputs, are added in int16: exact where
// the positive ones of these four weights sum up to at most 128, and the negative ones too (255 *
// 128 < 2^15). Groups are paired so that few exceed it (pairing_avx2.h); of those that do the
// largest weights are clamped, and the *residual weights*, what was taken away, are handled
// separately: each is multiplied with its column of A, which is transposed for that.
//
// A prepared weight: where each panel begins and the last one ends (int64), then each panel
// clamped, its groups pair by pair; behind it where in a span of steps the inputs of each group
// begin in A (uint16, of both halves), and its residual weights.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "../layout.h"
#include "pairing_avx2.h"

namespace OI8_NAMESPACE {

// Four weights of one output channel that are left to add; pairs of them fit vpmaddubsw. A value
// may be zero.
struct ResidualWeights {
  uint16_t column[4];
  int8_t value[4];
};

// Of one panel; its residual weights follow, channel by channel.
struct PanelResidual {
  int32_t start[32];  // what a sum begins with: -128 times the sum of the weights
  uint16_t counts[32];
};

constexpr int row_group_bytes = 16;             // of a group of inputs in four rows
constexpr int most_clamped_steps = 65536 / 64;  // the columns of residual weights have 16 bits

namespace clamping {

struct Part {
  int column, value;
};

// Takes from the largest of four weights what their sum on one side of zero has beyond 128.
inline void clamp_side(int8_t *const (&weights)[4], const int (&columns)[4], int sign,
                       std::vector<Part> &taken) {
  int sum = 0;
  for (const int8_t *weight : weights) sum += *weight * sign > 0 ? *weight * sign : 0;
  while (sum > 128) {
    int largest = 0;
    for (int i = 1; i < 4; i++)
      if (*weights[i] * sign > *weights[largest] * sign) largest = i;
    const int size = *weights[largest] * sign, most = size < 127 ? size : 127,
              part = sum - 128 < most ? sum - 128 : most;
    *weights[largest] = static_cast<int8_t>(*weights[largest] - part * sign);
    taken.push_back({columns[largest], part * sign});
    sum -= part;
  }
}

inline __m256i pair_sums(__m256i x) { return _mm256_maddubs_epi16(_mm256_set1_epi8(1), x); }

// Clamps the four weights of each lane of int16, of eight channels and two groups, whose inputs
// begin at two columns; `taken[i]` gets what is taken from channel i.
inline void clamp_groups(int8_t *one, int8_t *other, int one_column, int other_column,
                         std::vector<Part> *taken) {
  const __m256i zero = _mm256_setzero_si256(), limit = _mm256_set1_epi16(128);
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(one)),
                y = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(other));
  const __m256i above =
      _mm256_add_epi16(pair_sums(_mm256_max_epi8(x, zero)), pair_sums(_mm256_max_epi8(y, zero)));
  const __m256i below = _mm256_sub_epi16(
      zero,
      _mm256_add_epi16(pair_sums(_mm256_min_epi8(x, zero)), pair_sums(_mm256_min_epi8(y, zero))));
  unsigned lanes = static_cast<unsigned>(_mm256_movemask_epi8(_mm256_or_si256(
                       _mm256_cmpgt_epi16(above, limit), _mm256_cmpgt_epi16(below, limit)))) &
                   0x55555555u;
  for (; lanes; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes), inside = lane % 4;
    int8_t *const weights[4] = {one + lane, one + lane + 1, other + lane, other + lane + 1};
    const int columns[4] = {one_column + inside, one_column + inside + 1, other_column + inside,
                            other_column + inside + 1};
    clamp_side(weights, columns, 1, taken[lane / 4]);
    clamp_side(weights, columns, -1, taken[lane / 4]);
  }
}

// Pairs may not sum up to more than 128 on one side; a part without a partner is joined with zero.
inline void join(std::vector<Part> &parts, std::vector<ResidualWeights> &out) {
  std::vector<Part> pairs;
  while (!parts.empty()) {
    const Part part = parts.back();
    parts.pop_back();
    size_t partner = 0;
    while (partner < parts.size() && part.value * parts[partner].value > 0 &&
           std::abs(part.value) + std::abs(parts[partner].value) > 128)
      partner++;
    pairs.push_back(part);
    pairs.push_back(partner < parts.size() ? parts[partner] : Part{0, 0});
    if (partner < parts.size()) parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(partner));
  }
  for (size_t i = 0; i < pairs.size(); i += 4) {
    ResidualWeights four = {};
    for (size_t place = 0; place < 4 && i + place < pairs.size(); place++)
      four.column[place] = static_cast<uint16_t>(pairs[i + place].column),
      four.value[place] = static_cast<int8_t>(pairs[i + place].value);
    out.push_back(four);
  }
}

// Pairs and clamps a panel. `order` gets where in its span the inputs of each group begin, half by
// half; `residual` is what is left, channel by channel.
inline void clamp_panel(const int8_t *panel, int steps, int8_t *clamped, uint16_t *order,
                        PanelResidual &head, std::vector<ResidualWeights> &residual) {
  std::vector<Part> taken[32];
  __m256i sums[4] = {};
  std::memset(clamped, 0, static_cast<size_t>(steps) * step_bytes);
  for (int half = 0; half < 2; half++)
    for (int step = 0; step < steps; step += pairing_steps) {
      const int some = steps - step < pairing_steps ? steps - step : pairing_steps;
      int from[span_groups];
      const int8_t *const source = panel + half_at(int64_t(step), half);
      int8_t *const target = clamped + half_at(int64_t(step), half);
      pair_groups(source, some, from);
      const auto place = [](auto *first, int group) { return group_at(first, group); };
      for (int group = 0; group < some * 16; group++, order++) {
        *order = static_cast<uint16_t>(from[group] < 0 ? 0 : from[group] * row_group_bytes);
        if (from[group] >= 0) std::memcpy(place(target, group), place(source, from[group]), 64);
      }
      for (int group = 0; group < some * 16; group += 2)
        for (int eight = 0; eight < 2; eight++) {
          int8_t *const one = place(target, group) + eight * 32, *const other =
                                                                     place(target, group + 1) +
                                                                     eight * 32;
          for (const int8_t *weights : {one, other})
            sums[half * 2 + eight] = _mm256_add_epi32(
                sums[half * 2 + eight],
                _mm256_madd_epi16(
                    pair_sums(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(weights))),
                    _mm256_set1_epi16(-128)));
          clamp_groups(one, other, step * step_inputs + from[group] * group_inputs,
                       step * step_inputs + from[group + 1] * group_inputs,
                       taken + half * 16 + eight * 8);
        }
    }
  std::memcpy(head.start, sums, sizeof(sums));
  residual.clear();
  for (int channel = 0; channel < 32; channel++) {
    const size_t before = residual.size();
    join(taken[channel], residual);
    head.counts[channel] = static_cast<uint16_t>(residual.size() - before);
  }
}

}  // namespace clamping

// Bytes of a panel without its residual weights; of its order; and the most groups of four residual
// weights that pay: for 32 rows such a group takes 24 instructions and the start of a panel's sums
// some 1900; a group of inputs takes 192 less than on the sign-magnitude path.
constexpr int64_t order_bytes(int steps) { return int64_t(steps) * 64; }
constexpr int64_t clamped_bytes(int steps) {
  return int64_t(steps) * step_bytes + order_bytes(steps) +
         static_cast<int64_t>(sizeof(PanelResidual));
}
constexpr int64_t most_residuals(int64_t panels, int steps) {
  return panels * (steps * 16 * 192 * 2 / 3 - 1900) / 24;
}

// Writes the prepared form of so many panels to `out` and returns its bytes, 0 where it would not
// pay. Returns how many it may have when `out` is null.
inline int64_t prepare_weight(const int8_t *weight, int64_t panels, int steps, char *out) {
  const int64_t most = most_residuals(panels, steps);
  if (steps > most_clamped_steps || most < 0) return 0;
  int64_t offset = (panels * 8 + 8 + 63) / 64 * 64, residuals = 0;
  if (!out)
    return offset + panels * (clamped_bytes(steps) + 64) +
           most * static_cast<int64_t>(sizeof(ResidualWeights));
  std::vector<ResidualWeights> residual;
  for (int64_t panel = 0; panel < panels; panel++) {
    int8_t *const target = reinterpret_cast<int8_t *>(out) + offset;
    PanelResidual head;
    clamping::clamp_panel(weight + panel * steps * step_bytes, steps, target,
                          reinterpret_cast<uint16_t *>(target + int64_t(steps) * step_bytes), head,
                          residual);
    residuals += static_cast<int64_t>(residual.size());
    if (residuals > most) return 0;
    char *const behind = out + offset + clamped_bytes(steps);
    std::memcpy(behind - sizeof(head), &head, sizeof(head));
    std::memcpy(behind, residual.data(), residual.size() * sizeof(ResidualWeights));
    std::memcpy(out + panel * 8, &offset, 8);
    offset += (clamped_bytes(steps) +
               static_cast<int64_t>(residual.size() * sizeof(ResidualWeights)) + 63) /
              64 * 64;
  }
  std::memcpy(out + panels * 8, &offset, 8);
  return offset;
}

// Rows as the products read them, four by four: of each group of inputs the 16 bytes of its four
// rows. Two blocks of four rows are a cache line further apart, so that they do not share a set.
// Rows from `count` on repeat the last.
constexpr int64_t four_rows_bytes(int steps) { return int64_t(steps) * 16 * row_group_bytes + 64; }

inline void interleave_rows(const uint8_t *inputs, int64_t lda, int count, int columns,
                            uint8_t *out) {
  const int64_t distance = four_rows_bytes(steps_of(columns));
  for (int first_row = 0; first_row < count; first_row += 4, out += distance) {
    const uint8_t *row[4];
    for (int i = 0; i < 4; i++)
      row[i] = inputs + (first_row + i < count ? first_row + i : count - 1) * lda;
    for (int column = 0; column < columns; column += 16) {
      const auto load = [&](int i) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(row[i] + column));
      };
      const __m128i first = load(0), second = load(1), third = load(2), fourth = load(3);
      const __m128i first_two = _mm_unpacklo_epi32(first, second),
                    last_two = _mm_unpacklo_epi32(third, fourth),
                    xy_high = _mm_unpackhi_epi32(first, second),
                    zw_high = _mm_unpackhi_epi32(third, fourth);
      __m128i *const target = reinterpret_cast<__m128i *>(out + column * 4);
      _mm_store_si128(target, _mm_unpacklo_epi64(first_two, last_two));
      _mm_store_si128(target + 1, _mm_unpackhi_epi64(first_two, last_two));
      _mm_store_si128(target + 2, _mm_unpacklo_epi64(xy_high, zw_high));
      _mm_store_si128(target + 3, _mm_unpackhi_epi64(xy_high, zw_high));
    }
  }
}

// Rows as residual weights read them: for each column 32 bytes, rows 0 to 7, 16 to 23, 8 to 15, 24
// to 31. Rows from `count` on repeat the last.
inline void transpose_rows(const uint8_t *inputs, int64_t lda, int count, int columns,
                           uint8_t *out) {
  const uint8_t *low[16], *high[16];
  for (int i = 0; i < 16; i++) {
    const int row = i < 8 ? i : i + 8, other = row + 8;
    low[i] = inputs + (row < count ? row : count - 1) * lda,
    high[i] = inputs + (other < count ? other : count - 1) * lda;
  }
  for (int column = 0; column < columns; column += 16) {
    __m256i lines[16], mixed[16];
    for (int i = 0; i < 16; i++)
      lines[i] = _mm256_inserti128_si256(
          _mm256_castsi128_si256(
              _mm_loadu_si128(reinterpret_cast<const __m128i *>(low[i] + column))),
          _mm_loadu_si128(reinterpret_cast<const __m128i *>(high[i] + column)), 1);
    // The halves of the list, interleaved byte by byte four times, are the transposition.
    for (int stage = 0; stage < 4; stage++) {
      for (int i = 0; i < 8; i++)
        mixed[2 * i] = _mm256_unpacklo_epi8(lines[i], lines[i + 8]),
                  mixed[2 * i + 1] = _mm256_unpackhi_epi8(lines[i], lines[i + 8]);
      for (int i = 0; i < 16; i++) lines[i] = mixed[i];
    }
    for (int i = 0; i < 16; i++)
      _mm256_store_si256(reinterpret_cast<__m256i *>(out + (column + i) * 32), lines[i]);
  }
}

inline void transpose_8(__m256i (&lines)[8]) {
  __m256i mixed[8];
  for (int i = 0; i < 4; i++)
    mixed[2 * i] = _mm256_unpacklo_epi32(lines[2 * i], lines[2 * i + 1]),
              mixed[2 * i + 1] = _mm256_unpackhi_epi32(lines[2 * i], lines[2 * i + 1]);
  for (int i = 0; i < 2; i++) {
    const __m256i *four = mixed + 4 * i;
    lines[4 * i] = _mm256_unpacklo_epi64(four[0], four[2]),
              lines[4 * i + 1] = _mm256_unpackhi_epi64(four[0], four[2]);
    lines[4 * i + 2] = _mm256_unpacklo_epi64(four[1], four[3]),
                  lines[4 * i + 3] = _mm256_unpackhi_epi64(four[1], four[3]);
  }
  for (int i = 0; i < 4; i++)
    mixed[i] = _mm256_permute2x128_si256(lines[i], lines[i + 4], 0x20),
    mixed[i + 4] = _mm256_permute2x128_si256(lines[i], lines[i + 4], 0x31);
  for (int i = 0; i < 8; i++) lines[i] = mixed[i];
}

// What the sums of a block of rows begin with: the start of each channel and its residual weights.
// Written for 16 rows, or 32 when Wide.
template <bool Wide>
inline void begin_sums(const PanelResidual *head, const uint8_t *transposed, int32_t *sums_out,
                       int64_t ldc) {
  constexpr int parts = Wide ? 4 : 2;
  const ResidualWeights *next = reinterpret_cast<const ResidualWeights *>(head + 1);
  const __m256i ones = _mm256_set1_epi16(1);
  const auto column = [&](int part) {
    return _mm256_load_si256(reinterpret_cast<const __m256i *>(transposed + part * 32));
  };
  const auto pair = [](const int8_t *values) {
    int16_t both;
    std::memcpy(&both, values, 2);
    return _mm256_set1_epi16(both);
  };
  for (int first = 0; first < 32; first += 8) {
    if (_mm_testz_si128(_mm_loadu_si128(reinterpret_cast<const __m128i *>(head->counts + first)),
                        _mm_set1_epi32(-1))) {
      const __m256i start =
          _mm256_loadu_si256(reinterpret_cast<const __m256i *>(head->start + first));
      for (int row = 0; row < parts * 8; row++)
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(sums_out + row * ldc + first), start);
      continue;
    }
    __m256i sums[parts][8];
    for (int i = 0; i < 8; i++) {
      __m256i acc[4];
      acc[0] = acc[1] = acc[2] = acc[3] = _mm256_set1_epi32(head->start[first + i]);
      for (int rest = head->counts[first + i]; rest > 0; rest--, next++) {
        const __m256i first_column = column(next->column[0]),
                      second_column = column(next->column[1]),
                      third_column = column(next->column[2]),
                      fourth_column = column(next->column[3]);
        const __m256i first_weights = pair(next->value), second_weights = pair(next->value + 2);
        const auto add = [&](__m256i x, __m256i y, __m256i &one, __m256i &other) {
          x = _mm256_maddubs_epi16(x, first_weights), y = _mm256_maddubs_epi16(y, second_weights);
          one = _mm256_add_epi32(one, _mm256_madd_epi16(_mm256_unpacklo_epi16(x, y), ones));
          other = _mm256_add_epi32(other, _mm256_madd_epi16(_mm256_unpackhi_epi16(x, y), ones));
        };
        add(_mm256_unpacklo_epi8(first_column, second_column),
            _mm256_unpacklo_epi8(third_column, fourth_column), acc[0], acc[1]);
        if constexpr (Wide)
          add(_mm256_unpackhi_epi8(first_column, second_column),
              _mm256_unpackhi_epi8(third_column, fourth_column), acc[2], acc[3]);
      }
      for (int part = 0; part < parts; part++) sums[part][i] = acc[part];
    }
    for (int part = 0; part < parts; part++) {
      transpose_8(sums[part]);
      for (int i = 0; i < 8; i++) {
        const int row = part / 2 * 16 + part % 2 * 4 + (i < 4 ? i : i + 4);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(sums_out + row * ldc + first),
                            sums[part][i]);
      }
    }
  }
}

}  // namespace OI8_NAMESPACE
