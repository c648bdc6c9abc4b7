// Both products of a float attention on bfloat16 tiles; members as in ops/float_product.h. The
// tiles are those that `Tile::enter` configures.
//
// tdpbf16ps adds 16 pairs in two chains, their sum to the tile, and takes numbers below 2**-126 for
// zero (numerics/attention_float.py): equal to the other ISAs up to float rounding. Keys, values,
// queries and weights are padded with zeros to whole steps of 32.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "../layout.h"
#include "vector_avx512.h"

#define OI8_BFLOAT16_TILE Bf16TileProduct

namespace OI8_NAMESPACE {

// x rounded to 16 bits of bfloat16.
inline __m256i bfloat16_bits(Floats x) {
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(to_bfloat16(x)), 16));
}

struct Bf16TileProduct {
  using Weight = uint16_t;
  static constexpr int rows = 32;

  static int64_t padded(int64_t count) { return (count + 31) / 32 * 32; }
  static int64_t query_bytes(int64_t rows, int64_t head) { return padded(rows) * padded(head) * 2; }
  static int64_t key_bytes(int64_t keys, int64_t head) { return padded(keys) * padded(head) * 2; }
  static int64_t value_bytes(int64_t keys, int64_t head) { return padded(keys) * padded(head) * 2; }
  static int64_t weight_bytes(int64_t keys) { return rows * padded(keys) * 2; }
  static Weight *weights(float *, char *memory) { return reinterpret_cast<Weight *>(memory); }

  static void pack_query(const float *query, int head, char *target, int64_t row) {
    uint16_t *out = reinterpret_cast<uint16_t *>(target) + row * padded(head);
    for (int i = 0; i < padded(head); i += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + i),
                          bfloat16_bits(load(query + i, i < head ? head - i : 0)));
  }

  // Tiles of 32 columns of 16 keys: a pair of columns of a key at [pair][key].
  static void pack_keys(const float *source, int64_t stride, int keys, int head, char *target) {
    alignas(64) uint16_t lines[16][32];
    for (int key = 0; key < padded(keys); key += 16)
      for (int first = 0; first < head; first += 32, target += half_bytes) {
        for (int i = 0; i < 32; i++) {
          const int column = first + i % 2 * 16,
                    count = key + i / 2 < keys && column < head ? head - column : 0;
          const Floats values = load(source + (count ? (key + i / 2) * stride + column : 0), count);
          _mm256_storeu_si256(reinterpret_cast<__m256i *>(lines[i / 2] + i % 2 * 16),
                              bfloat16_bits(values));
        }
        transpose_16(lines, 64, reinterpret_cast<float *>(target));
      }
  }

  // Tiles of 32 keys of 16 columns: a pair of keys of a column at [pair][column].
  static void pack_values(const float *source, int64_t stride, int keys, int head, char *target) {
    for (int column = 0; column < padded(head); column += 16)
      for (int first_key = 0; first_key < padded(keys); first_key += 2, target += 64) {
        const auto line = [&](int key) {
          const int count = key < keys && column < head ? head - column : 0;
          return _mm512_castps_si512(
              to_bfloat16(load(source + (count ? key * stride + column : 0), count)));
        };
        _mm512_storeu_si512(
            target, _mm512_or_si512(_mm512_srli_epi32(line(first_key), 16), line(first_key + 1)));
      }
  }

  static void put(Weight *target, Floats weight) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(target), bfloat16_bits(weight));
  }

  static void scores(const char *queries, int64_t row, int rows, const char *packed, int keys,
                     int head, float *out, int64_t ldc) {
    const int steps = static_cast<int>(padded(head) / 32);
    multiply(reinterpret_cast<const uint16_t *>(queries) + row * padded(head), padded(head), rows,
             packed, steps, steps, static_cast<int>(padded(keys) / 16), out, ldc, false);
  }

  static bool takes_rows(int) { return false; }

  static void weigh(const Weight *weights, int64_t lda, int rows, const char *values, int64_t,
                    int keys, int all, int head, float *out) {
    multiply(weights, lda, rows, values, static_cast<int>(padded(keys) / 32),
             static_cast<int>(padded(all) / 32), static_cast<int>(up_to_lanes(head) / 16), out,
             up_to_lanes(head), true);
  }

 private:
  // C[rows][16 * columns], two columns of tiles at a time; `stored`: steps from one column to the
  // next.
  static void multiply(const uint16_t *rows_of_a, int64_t lda, int rows, const char *packed,
                       int steps, int stored, int columns, float *sums, int64_t ldc, bool add) {
    for (; columns > 0; columns -= 2, packed += 2 * stored * half_bytes, sums += 32) {
      if (columns == 1)
        rows > 16 ? tiles<true, false>(rows_of_a, lda, packed, steps, stored, sums, ldc, add)
                  : tiles<false, false>(rows_of_a, lda, packed, steps, stored, sums, ldc, add);
      else
        rows > 16 ? tiles<true, true>(rows_of_a, lda, packed, steps, stored, sums, ldc, add)
                  : tiles<false, true>(rows_of_a, lda, packed, steps, stored, sums, ldc, add);
    }
  }

  template <bool Low, bool Right>
  static inline void tiles(const uint16_t *rows_of_a, int64_t lda, const char *packed, int steps,
                           int stored, float *sums, int64_t ldc, bool add) {
    const char *right = packed + stored * half_bytes;
    float *low = sums + 16 * ldc;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (add) {
      _tile_loadd(0, sums, ldc * 4);
      if (Right) _tile_loadd(1, sums + 16, ldc * 4);
      if (Low) _tile_loadd(2, low, ldc * 4);
      if (Low && Right) _tile_loadd(3, low + 16, ldc * 4);
    }
    for (int step = 0; step < steps; step++) {
      _tile_loadd(4, rows_of_a + step * 32, lda * 2);
      if (Low) _tile_loadd(5, rows_of_a + 16 * lda + step * 32, lda * 2);
      _tile_loadd(6, packed + step * half_bytes, 64);
      if (Right) _tile_loadd(7, right + step * half_bytes, 64);
      _tile_dpbf16ps(0, 4, 6);
      if (Right) _tile_dpbf16ps(1, 4, 7);
      if (Low) _tile_dpbf16ps(2, 5, 6);
      if (Low && Right) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, ldc * 4);
    if (Right) _tile_stored(1, sums + 16, ldc * 4);
    if (Low) _tile_stored(2, low, ldc * 4);
    if (Low && Right) _tile_stored(3, low + 16, ldc * 4);
  }
};

}  // namespace OI8_NAMESPACE
