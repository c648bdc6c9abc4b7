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
  static int64_t prepared_bytes(int) { return 0; }  // of one block of rows, of so many steps
  static Rows prepare(const uint8_t *a, int64_t lda, int, int, char *) { return {a, lda}; }  // so many rows of so many columns
  static void column_sums(const int8_t *, int, int32_t *) {}  // of so many columns of a panel; called only where there is an offset
};

}  // namespace OI8_NAMESPACE
