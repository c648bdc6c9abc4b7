// What all tiles share: the prefetch of weights, and the rows of A as they are, for a tile that
// does not rewrite them. A tile that does has members of the same names.
//
// Contract of `Tile::block` on every ISA: C[rows][32] = A[rows][64 * steps] (uint8) by one weight
// panel (int8, layout.h), exact in int32. At most `Tile::rows` rows; A readable for a multiple of
// 16 rows and of 64 columns; rows of C are `ldc` integers apart and written for a multiple of 16
// rows. `between(i)` is called `pauses` times, so that other work (the epilogue of the previous
// block) overlaps the products; `prefetch` is fetched meanwhile. A goes through `prepare`, once for
// all panels; the sums are those of A - `offset`.
#pragma once
#include <cstdint>

#include "../layout.h"

namespace OI8_NAMESPACE {

struct Span {
  const char *begin = nullptr;
  int64_t count = 0;

  Span following() const { return {begin + count, count}; }
};

// What a block prefetches while it multiplies: the weights that come next, so many lines of the
// cache for each of its steps. A tile asks for a few at a time: a processor that waits for as many
// lines as it can stops at the next one, and loads and products take turns.
struct Prefetch {
  static constexpr int few =
      4;  // so many go to L1 and on to L2 with less waiting (kernels/README.md); more of them would
          // stand in each other's way
  const char *next = nullptr;
  int lines = 0;
  const char *end = nullptr;

  // A `parts`-th of a step's lines, rounded up.
  int share(int parts) const { return (lines + parts - 1) / parts; }
  inline void fetch(int count) {
    if (lines <= few)
      for (int i = 0; i < count; i++, next += 64) __builtin_prefetch(next, 0, 3);
    else
      for (int i = 0; i < count; i++, next += 64) __builtin_prefetch(next, 0, 2);
  }
};

// For a block of so many steps, of which `blocks` read the panel before.
inline Prefetch prefetch_of(const Span &next, int64_t blocks, int steps) {
  const int64_t all = blocks * steps;
  if (!all) return {};
  return {next.begin, static_cast<int>((next.count / 64 + all - 1) / all), next.begin + next.count};
}

// What decides between Winograd's way (ops/winograd.h) and the direct one, in any unit of time, per
// input channel and panel; `pixels` of all panels.
struct WinogradCosts {
  double direct;   // of a pixel
  double product;  // of a tile, as the three below
  double results;  // for each segment of the input channels, of all of them together
  double weights;  // of a block of tiles, not of a tile
  double pixels;
};

// `prepared` is the prepared form of a weight or null (optimum_int8.h).
struct PlainRows {
  struct Rows {
    const uint8_t *first;
    int64_t lda;
  };
  using Panel = const int8_t *;
  static constexpr bool winograd = false;  // whether 3x3 kernels may go the way of ops/winograd.h
  static constexpr bool takes_spans =
      false;  // whether a row may be spans of bytes from anywhere (`spans`)
  static constexpr int32_t offset = 0;  // the sums of `block` are those of A - offset

  static const void *prepared_for(const void *, int64_t) {
    return nullptr;
  }  // what is of use for so many rows; all others take its result
  static constexpr bool keeps_rows = true;  // whether what `prepare` returns still reads A
  static int64_t prepared_bytes(int, const void * = nullptr) {
    return 0;
  }  // of one block of rows, of so many steps
  static Rows prepare(const uint8_t *inputs, int64_t lda, int, int, char *,
                      const void * = nullptr) {
    return {inputs, lda};
  }  // so many rows of so many columns
  static Panel panel(const void *weight, const void *, int64_t index, int steps) {
    return static_cast<const int8_t *>(weight) + index * steps * step_bytes;
  }
  static Span bytes_of(Panel panel, int steps) {
    return {reinterpret_cast<const char *>(panel), int64_t(steps) * step_bytes};
  }
  static int pauses(int steps) { return steps; }  // how often `block` calls `between`
  static void column_sums(const int8_t *, int, int32_t *) {
  }  // of so many columns of a panel; called only where there is an offset
};

}  // namespace OI8_NAMESPACE
