// Whether memory still holds what it held.
#pragma once

#include "optimum_int8.h"

#ifdef __cplusplus
extern "C" {
#endif

// 1 unless the `sizes[i]` bytes at `places[i]`, one after the other, are those of `copy`; else 0.
// Reads only, from any thread.
OI8_EXPORT int oi8_changed(const void *const *places, const int64_t *sizes, int64_t count,
                           const void *copy);

#ifdef __cplusplus
}
#endif
