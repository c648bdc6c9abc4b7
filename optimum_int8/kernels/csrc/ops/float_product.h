// Both products of a float attention on 16 lanes: keys in panels of 16, values as rows, in float32
// or rounded to bfloat16. Written once for all ISAs; what an ISA has for bfloat16
// (isa/tile_bf16_amx.h) has members of the same names.
//
// Sizes are free. Keys, values and queries of a block are packed; weights take the place of the
// scores.
#pragma once
#include <cstring>

#include "../layout.h"
#include "context.h"
#include "float_tile.h"

namespace OI8_NAMESPACE {

// Up to 16 rows of up to 16 columns, transposed; what is absent is 0.
inline void transpose_some(const float *source, int64_t stride, int rows, int columns, float *out) {
  if (rows >= 16 && columns >= 16) return transpose_16(source, stride * 4, out);
  alignas(64) float some[256] = {};
  for (int i = 0; i < rows && i < 16; i++)
    std::memcpy(some + i * 16, source + i * stride, (columns < 16 ? columns : 16) * 4);
  transpose_16(some, 64, out);
}

template <bool Round>
struct LaneProduct {
  using Weight = float;
  static constexpr int rows = float_rows;

  static int64_t query_bytes(int64_t rows, int64_t head) { return rows * up_to_lanes(head) * 4; }
  static int64_t key_bytes(int64_t keys, int64_t head) {
    return up_to_lanes(keys) * up_to_lanes(head) * 4;
  }
  static int64_t value_bytes(int64_t keys, int64_t head) { return keys * up_to_lanes(head) * 4; }
  static int64_t weight_bytes(int64_t) { return 0; }  // they take the scores' place
  static Weight *weights(float *scores, char *) { return scores; }
  static Floats rounded(Floats x) { return Round ? to_bfloat16(x) : x; }

  static void pack_query(const float *query, int head, char *target, int64_t row) {
    float *out = reinterpret_cast<float *>(target) + row * up_to_lanes(head);
    by_16(head, [&](int i, auto count) { store(out + i, rounded(load(query + i, count))); });
  }

  static void pack_keys(const float *source, int64_t stride, int keys, int head, char *target) {
    for (int key = 0; key < keys; key += 16)
      for (int column = 0; column < head; column += 16) {
        float *out = reinterpret_cast<float *>(target) + key * up_to_lanes(head) + column * 16;
        transpose_some(source + key * stride + column, stride, keys - key, head - column, out);
        for (int i = 0; Round && i < 16; i++) store(out + i * 16, rounded(load(out + i * 16)));
      }
  }

  static void pack_values(const float *source, int64_t stride, int keys, int head, char *target) {
    for (int key = 0; key < keys; key++)
      by_16(head, [&](int column, auto count) {
        store(reinterpret_cast<float *>(target) + int64_t(column) * keys + key * 16,
              rounded(load(source + key * stride + column, count)));
      });
  }

  static void put(Weight *target, Floats weight) { store(target, rounded(weight)); }

  // Scores of rows from `row` on.
  static void scores(const char *queries, int64_t row, int rows, const char *packed, int keys,
                     int head, float *out, int64_t ldc) {
    const float *first_query = reinterpret_cast<const float *>(queries) + row * up_to_lanes(head);
    const float *first_key = reinterpret_cast<const float *>(packed);
    float_tile({first_query, up_to_lanes(head), first_key, 16, 16 * up_to_lanes(head), head, out,
                ldc, false},
               rows, (keys + 15) / 16);
  }

  // Whether `weigh` also takes values as they lie, which spares one group of rows to pack them.
  static bool takes_rows(int head) { return !Round && head % 16 == 0; }

  // Adds to the sums `out` the first `keys` of `all` keys, times their weights. `stride`: of values
  // as they lie, else 0.
  static void weigh(const Weight *weights, int64_t lda, int rows, const char *values,
                    int64_t stride, int keys, int all, int head, float *out) {
    const int64_t ldb = stride ? stride : 16, next = stride ? 16 : int64_t(16) * all;
    float_tile({weights, lda, reinterpret_cast<const float *>(values), ldb, next, keys, out,
                up_to_lanes(head), true},
               rows, static_cast<int>(up_to_lanes(head) / 16));
  }
};

}  // namespace OI8_NAMESPACE
