// The float tile: C[rows][16 * vectors] = A[rows][n] by B[n][16 * vectors] in float32. Each sum
// runs in the order of n, and each product is added to it with one rounding, so that every ISA
// gives the same bits. Rows and vectors are free; as many sums as fit stay in registers.
#pragma once
#include <utility>

#include "../isa/target.h"

namespace OI8_NAMESPACE {

struct FloatBlock {
  const float *rows;
  int64_t lda;
  const float *vectors;
  int64_t ldb, next;  // from one of n to the next, from one vector to the next
  int depth;
  float *sums;
  int64_t ldc;
  bool add;  // to what is in C
};

// Folds, because gcc keeps an array in registers only if its indices are constants from the start.
template <int Width, int... index, int... vector>
inline void float_registers(const FloatBlock &block, std::integer_sequence<int, index...>,
                            std::integer_sequence<int, vector...>) {
  Floats sums[sizeof...(index)], line[Width];
  if (block.add)
    ((sums[index] = load(block.sums + index / Width * block.ldc + index % Width * 16)), ...);
  else
    ((sums[index] = set(0.0f)), ...);
  const float *rows = block.rows, *vectors = block.vectors;
  const int64_t lda = block.lda, next = block.next;
  for (int step = 0; step < block.depth; step++, rows++, vectors += block.ldb) {
    ((line[vector] = load(vectors + vector * next)), ...);
    ((sums[index] = multiply_add(set(rows[index / Width * lda]), line[index % Width], sums[index])),
     ...);
  }
  (store(block.sums + index / Width * block.ldc + index % Width * 16, sums[index]), ...);
}

template <int Rows, int Width>
inline void float_vectors_from(FloatBlock block, int vectors) {
  for (; vectors >= Width;
       vectors -= Width, block.vectors += Width * block.next, block.sums += Width * 16)
    float_registers<Width>(block, std::make_integer_sequence<int, Rows * Width>(),
                           std::make_integer_sequence<int, Width>());
  if constexpr (Width > 1)
    if (vectors) float_vectors_from<Rows, Width / 2>(block, vectors);
}

// At most `R` rows.
template <int Rows = float_rows>
inline void float_tile(const FloatBlock &block, int rows, int vectors) {
  constexpr int fitting = float_vectors / Rows;
  if (rows == Rows)
    float_vectors_from<Rows, fitting >= 4 ? 4 : fitting >= 2 ? 2 : 1>(block, vectors);
  else if constexpr (Rows > 1)
    float_tile<Rows - 1>(block, rows, vectors);
}

}  // namespace OI8_NAMESPACE
