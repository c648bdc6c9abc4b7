// How a tile wants the rows of A, where it takes them as they lie. A tile that rewrites them has members of the same names.
#pragma once
#include <cstdint>

namespace OI8_NAMESPACE {

struct RowsAsTheyLie {
  struct Rows {
    const uint8_t *a;
    int64_t lda;
  };
  static constexpr int32_t offset = 0;  // the sums of `block` are those of A - offset
  static int64_t prepared_bytes(int, const void * = nullptr) { return 0; }  // of one block of rows, of so many steps, for a prepared weight
  static Rows prepare(const uint8_t *a, int64_t lda, int, int, char *, const void * = nullptr) { return {a, lda}; }  // so many rows of so many columns
  using Panel = const int8_t *;
  static Panel panel(const void *weight, const void *, int64_t, int64_t index, int steps) { return static_cast<const int8_t *>(weight) + index * steps * 2048; }  // of so many, of a weight and its prepared form
  static constexpr bool keeps_rows(const void *) { return true; }  // whether what `prepare` returns, for a prepared weight, still reads A
  static const char *first_byte(Panel panel) { return reinterpret_cast<const char *>(panel); }  // to prefetch what follows
  static void column_sums(const int8_t *, int, int32_t *) {}  // of so many columns of a panel; called only where there is an offset
};

}  // namespace OI8_NAMESPACE
