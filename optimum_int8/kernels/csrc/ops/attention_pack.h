// Keys and values of one head as panels (layout.h), which the tile of the linears reads, and scores
// of a few queries without panels. Any head size and number of keys: what is absent is zero.
#pragma once
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <cstring>

#include "../isa/target.h"
#include "../layout.h"

namespace OI8_NAMESPACE {

// 16 keys, 64 columns: dword g of key n goes to out[g][n]; adds each key's sum to sums[n]. Absent
// keys and columns are 0.
inline void pack_16_keys(const uint8_t *source, int64_t stride, int keys, int columns, int8_t *out,
                         int32_t *sums) {
  alignas(64) uint8_t some[16][64];
  if (keys < 16 || columns < 64) {
    std::memset(some, 0x80, sizeof some);
    for (int key = 0; key < keys && key < 16; key++)
      std::memcpy(some[key], source + key * stride, columns < 64 ? columns : 64);
    source = some[0], stride = 64;
  }
  transpose_16(source, stride, reinterpret_cast<float *>(out));
#if defined(__AVX2__)
  const __m256i flip = _mm256_set1_epi8(char(0x80)), ones = _mm256_set1_epi8(1),
                wide = _mm256_set1_epi16(1);
  for (int half = 0; half < 64; half += 32) {
    __m256i *sums_out = reinterpret_cast<__m256i *>(sums + half / 4),
            total = _mm256_loadu_si256(sums_out);
    for (int group = 0; group < 16; group++) {
      __m256i *place = reinterpret_cast<__m256i *>(out + group * group_bytes + half);
      const __m256i line = _mm256_xor_si256(_mm256_loadu_si256(place), flip);
      _mm256_storeu_si256(place, line);
      total = _mm256_add_epi32(total, _mm256_madd_epi16(_mm256_maddubs_epi16(ones, line), wide));
    }
    _mm256_storeu_si256(sums_out, total);
  }
#else
  for (int i = 0; i < half_bytes; i++) {
    out[i] = static_cast<int8_t>(static_cast<uint8_t>(out[i]) ^ 0x80);
    sums[i % group_bytes / group_inputs] += out[i];
  }
#endif
}

// Keys as the weight of a linear: panels of 32 keys, K = head size; with the sum of each key times
// the queries' zero point.
inline void pack_keys(const uint8_t *source, int64_t stride, int length, int head, int8_t *panels,
                      int32_t *sums) {
  const int steps = steps_of(head);
  std::memset(sums, 0, up_to_step(length) * sizeof(int32_t));
  for (int64_t key = 0; key < up_to_panel(length); key += 16)
    for (int step = 0; step < steps; step++) {
      const int keys = static_cast<int>(length - key < 16 ? length - key : 16);
      pack_16_keys(source + key * stride + step * 64, stride, keys, head - step * 64,
                   panels + half_at(key / panel_columns * steps + step, key / half_columns % 2),
                   sums + key);
    }
  for (int64_t key = 0; key < up_to_panel(length); key++) sums[key] *= 128 - Tile::offset;
}

// Integer scores of one query without panels: making them costs more than what a few queries gain
// (a decoding step has one). The compiler finds the product of 16-bit pairs in this loop.
inline void score_one(const uint8_t *query, const uint8_t *key_rows, int64_t stride, int keys,
                      int head, int32_t *scores) {
  int16_t centred[256];
  for (int from = 0; from < head; from += 256) {
    const int count = head - from < 256 ? head - from : 256;
    for (int i = 0; i < count; i++) centred[i] = static_cast<int16_t>(query[from + i] - 128);
    for (int64_t j = 0; j < keys; j++) {
      const uint8_t *key = key_rows + j * stride + from;
      int32_t sum = 0;
      for (int i = 0; i < count; i++) sum += int32_t(centred[i]) * int32_t(int16_t(key[i] - 128));
      scores[j] = from ? scores[j] + sum : sum;
    }
  }
}

// Four rows of 16 bytes, flipped to signed, as 16 groups of one byte from each row.
inline void interleave_signed(const uint8_t *lines, int64_t stride, int8_t *out) {
#if defined(__SSE2__)
  const __m128i flip = _mm_set1_epi8(char(0x80));
  __m128i lines_signed[4];
  for (int i = 0; i < 4; i++)
    lines_signed[i] =
        _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i *>(lines + i * stride)), flip);
  const __m128i low01 = _mm_unpacklo_epi8(lines_signed[0], lines_signed[1]),
                low23 = _mm_unpacklo_epi8(lines_signed[2], lines_signed[3]);
  const __m128i high01 = _mm_unpackhi_epi8(lines_signed[0], lines_signed[1]),
                high23 = _mm_unpackhi_epi8(lines_signed[2], lines_signed[3]);
  __m128i *target = reinterpret_cast<__m128i *>(out);
  _mm_storeu_si128(target, _mm_unpacklo_epi16(low01, low23));
  _mm_storeu_si128(target + 1, _mm_unpackhi_epi16(low01, low23));
  _mm_storeu_si128(target + 2, _mm_unpacklo_epi16(high01, high23));
  _mm_storeu_si128(target + 3, _mm_unpackhi_epi16(high01, high23));
#else
  for (int column = 0; column < 16; column++)
    for (int i = 0; i < 4; i++)
      out[column * 4 + i] = static_cast<int8_t>(lines[i * stride + column] ^ 0x80);
#endif
}

// Values as the weight of a linear: panels of 32 head columns, K = keys.
inline void pack_values(const uint8_t *source, int64_t stride, int length, int head,
                        int8_t *panels) {
  const int64_t steps = up_to_step(length) / step_inputs;
  for (int64_t key = 0; key < steps * step_inputs; key += group_inputs)
    for (int column = 0; column < up_to_panel(head); column += 16) {
      int8_t *out =
          panels +
          half_at((column / panel_columns) * steps + key / step_inputs, column / half_columns % 2) +
          key % step_inputs / group_inputs * group_bytes;
      if (key + 4 <= length && column + 16 <= head) {
        interleave_signed(source + key * stride + column, stride, out);
        continue;
      }
      uint8_t lines[4][16];
      for (int i = 0; i < 4; i++) {
        const int valid = key + i < length ? (head - column < 16 ? head - column : 16) : 0;
        std::memset(lines[i], 0x80, 16);
        if (valid == 16)
          std::memcpy(lines[i], source + (key + i) * stride + column, 16);
        else if (valid > 0)
          std::memcpy(lines[i], source + (key + i) * stride + column, valid);
      }
      interleave_signed(lines[0], 16, out);
    }
}

}  // namespace OI8_NAMESPACE
