// The float tile: C[rows][16 * vectors] = A[rows][n] by B[n][16 * vectors] in float32. Each sum runs in the order of n, and each product
// is added to it with one rounding, so that every ISA gives the same bits. Rows and vectors are free; as many sums as fit stay in registers.
#pragma once
#include <utility>

namespace OI8_NAMESPACE {

struct FloatBlock {
  const float *a;
  int64_t lda;
  const float *b;
  int64_t ldb, next;  // from one of n to the next, from one vector to the next
  int n;
  float *c;
  int64_t ldc;
  bool add;  // to what is in C
};

// Folds, because gcc keeps an array in registers only if its indices are constants from the start.
template <int W, int... i, int... w>
inline void float_registers(const FloatBlock &t, std::integer_sequence<int, i...>, std::integer_sequence<int, w...>) {
  F sums[sizeof...(i)], line[W];
  if (t.add)
    ((sums[i] = load(t.c + i / W * t.ldc + i % W * 16)), ...);
  else
    ((sums[i] = set(0.0f)), ...);
  const float *a = t.a, *b = t.b;
  const int64_t lda = t.lda, next = t.next;
  for (int k = 0; k < t.n; k++, a++, b += t.ldb) {
    ((line[w] = load(b + w * next)), ...);
    ((sums[i] = multiply_add(set(a[i / W * lda]), line[i % W], sums[i])), ...);
  }
  (store(t.c + i / W * t.ldc + i % W * 16, sums[i]), ...);
}

template <int R, int W>
inline void float_vectors_from(FloatBlock t, int vectors) {
  for (; vectors >= W; vectors -= W, t.b += W * t.next, t.c += W * 16)
    float_registers<W>(t, std::make_integer_sequence<int, R * W>(), std::make_integer_sequence<int, W>());
  if constexpr (W > 1)
    if (vectors) float_vectors_from<R, W / 2>(t, vectors);
}

// At most `R` rows.
template <int R = float_rows>
inline void float_tile(const FloatBlock &t, int rows, int vectors) {
  constexpr int fitting = float_vectors / R;
  if (rows == R)
    float_vectors_from<R, fitting >= 4 ? 4 : fitting >= 2 ? 2 : 1>(t, vectors);
  else if constexpr (R > 1)
    float_tile<R - 1>(t, rows, vectors);
}

}  // namespace OI8_NAMESPACE
