// Both products of a float attention on bfloat16 tiles; members as in ops/float_product.h. The tiles are those that `Tile::enter` configures.
//
// tdpbf16ps adds 16 pairs in two chains, their sum to the tile, and takes numbers below 2**-126 for zero (numerics_bfloat16.py): equal to
// the other ISAs up to float rounding. Keys, values, queries and weights are padded with zeros to whole steps of 32.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define OI8_BFLOAT16_TILE Bf16TileProduct

namespace OI8_NAMESPACE {

// x rounded to 16 bits of bfloat16.
inline __m256i bfloat16_bits(F x) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(to_bfloat16(x)), 16)); }

struct Bf16TileProduct {
  using Weight = uint16_t;
  static constexpr int rows = 32;

  static int64_t up(int64_t n) { return (n + 31) / 32 * 32; }
  static int64_t query_bytes(int64_t rows, int64_t head) { return up(rows) * up(head) * 2; }
  static int64_t key_bytes(int64_t keys, int64_t head) { return up(keys) * up(head) * 2; }
  static int64_t value_bytes(int64_t keys, int64_t head) { return up(keys) * up(head) * 2; }
  static int64_t weight_bytes(int64_t keys) { return rows * up(keys) * 2; }
  static Weight *weights(float *, char *memory) { return reinterpret_cast<Weight *>(memory); }

  static void pack_query(const float *q, int head, char *to, int64_t row) {
    uint16_t *out = reinterpret_cast<uint16_t *>(to) + row * up(head);
    for (int i = 0; i < up(head); i += 16) _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + i), bfloat16_bits(load(q + i, i < head ? head - i : 0)));
  }

  // Tiles of 32 columns of 16 keys: pair g of key n at [g][n].
  static void pack_keys(const float *k, int64_t stride, int keys, int head, char *to) {
    alignas(64) uint16_t lines[16][32];
    for (int j = 0; j < up(keys); j += 16)
      for (int c = 0; c < head; c += 32, to += 1024) {
        for (int i = 0; i < 32; i++) {
          const int column = c + i % 2 * 16, n = j + i / 2 < keys && column < head ? head - column : 0;
          const F x = load(k + (n ? (j + i / 2) * stride + column : 0), n);
          _mm256_storeu_si256(reinterpret_cast<__m256i *>(lines[i / 2] + i % 2 * 16), bfloat16_bits(x));
        }
        transpose_16(lines, 64, reinterpret_cast<float *>(to));
      }
  }

  // Tiles of 32 keys of 16 columns: keys 2 g and 2 g + 1 of column n at [g][n].
  static void pack_values(const float *v, int64_t stride, int keys, int head, char *to) {
    for (int c = 0; c < up(head); c += 16)
      for (int j = 0; j < up(keys); j += 2, to += 64) {
        const auto line = [&](int key) {
          const int n = key < keys && c < head ? head - c : 0;
          return _mm512_castps_si512(to_bfloat16(load(v + (n ? key * stride + c : 0), n)));
        };
        _mm512_storeu_si512(to, _mm512_or_si512(_mm512_srli_epi32(line(j), 16), line(j + 1)));
      }
  }

  static void put(Weight *to, F e) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), bfloat16_bits(e)); }

  static void scores(const char *queries, int64_t row, int rows, const char *packed, int keys, int head, float *out, int64_t ldc) {
    const int steps = static_cast<int>(up(head) / 32);
    multiply(reinterpret_cast<const uint16_t *>(queries) + row * up(head), up(head), rows, packed, steps, steps, static_cast<int>(up(keys) / 16), out, ldc, false);
  }

  static bool takes_rows(int) { return false; }

  static void weigh(const Weight *weights, int64_t lda, int rows, const char *values, int64_t, int keys, int all, int head, float *out) {
    multiply(weights, lda, rows, values, static_cast<int>(up(keys) / 32), static_cast<int>(up(all) / 32), static_cast<int>(up16(head) / 16), out, up16(head), true);
  }

 private:
  // C[rows][16 * columns], two columns of tiles at a time; `stored`: steps from one column to the next.
  static void multiply(const uint16_t *a, int64_t lda, int rows, const char *b, int steps, int stored, int columns, float *c, int64_t ldc, bool add) {
    for (; columns > 0; columns -= 2, b += 2 * stored * 1024, c += 32) {
      if (columns == 1)
        rows > 16 ? tiles<true, false>(a, lda, b, steps, stored, c, ldc, add) : tiles<false, false>(a, lda, b, steps, stored, c, ldc, add);
      else
        rows > 16 ? tiles<true, true>(a, lda, b, steps, stored, c, ldc, add) : tiles<false, true>(a, lda, b, steps, stored, c, ldc, add);
    }
  }

  template <bool Low, bool Right>
  static inline void tiles(const uint16_t *a, int64_t lda, const char *b, int steps, int stored, float *c, int64_t ldc, bool add) {
    const char *right = b + stored * 1024;
    float *low = c + 16 * ldc;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (add) {
      _tile_loadd(0, c, ldc * 4);
      if (Right) _tile_loadd(1, c + 16, ldc * 4);
      if (Low) _tile_loadd(2, low, ldc * 4);
      if (Low && Right) _tile_loadd(3, low + 16, ldc * 4);
    }
    for (int s = 0; s < steps; s++) {
      _tile_loadd(4, a + s * 32, lda * 2);
      if (Low) _tile_loadd(5, a + 16 * lda + s * 32, lda * 2);
      _tile_loadd(6, b + s * 1024, 64);
      if (Right) _tile_loadd(7, right + s * 1024, 64);
      _tile_dpbf16ps(0, 4, 6);
      if (Right) _tile_dpbf16ps(1, 4, 7);
      if (Low) _tile_dpbf16ps(2, 5, 6);
      if (Low && Right) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, ldc * 4);
    if (Right) _tile_stored(1, c + 16, ldc * 4);
    if (Low) _tile_stored(2, low, ldc * 4);
    if (Low && Right) _tile_stored(3, low + 16, ldc * 4);
  }
};

}  // namespace OI8_NAMESPACE
