#include "changed.h"

#include <cstring>

int oi8_changed(const void *const *places, const int64_t *sizes, int64_t count, const void *copy) {
  const char *expected = static_cast<const char *>(copy);
  for (int64_t i = 0; i < count; i++) {
    if (std::memcmp(places[i], expected, static_cast<size_t>(sizes[i])) != 0) return 1;
    expected += sizes[i];
  }
  return 0;
}
