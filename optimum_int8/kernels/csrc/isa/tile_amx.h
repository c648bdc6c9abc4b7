// The integer tile on AMX. Contract in rows.h; `between` is called once per step. Permission for
// AMX is per process (cpu.cpp), the tile configuration per thread (`enter`, `leave`).
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "../layout.h"
#include "rows.h"
#include "tile_bf16_amx.h"

namespace OI8_NAMESPACE {

struct Tile : PlainRows {
  static constexpr int rows = 32;

  static void enter() {
    struct alignas(64) Config {
      uint8_t palette, start_row, reserved[14];
      uint16_t column_bytes[16];
      uint8_t rows[16];
    };
    static const Config config = {
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
#ifndef OI8_EMULATED  // by tests/kernels/emulation, on CPUs without AMX
    // gcc 12's _tile_loadconfig may read a structure that was never stored
    asm volatile("ldtilecfg %0" ::"m"(config));
#else
    (void)config;
#endif
  }
  static void leave() { _tile_release(); }

  template <class Between>
  static inline __attribute__((always_inline)) void block(const Rows &inputs, int rows,
                                                          const int8_t *panel, int steps,
                                                          int32_t *sums, int64_t ldc,
                                                          Prefetch &prefetch, Between &&between) {
    const uint8_t *first_row = inputs.first;
    const int64_t lda = inputs.lda;
    _tile_zero(0);
    _tile_zero(1);
    if (rows > 16) {
      const uint8_t *low = first_row + 16 * lda;
      _tile_zero(2);
      _tile_zero(3);
      // all loads, then all products: switching between the two can be slow (kernels/README.md)
      for (int step = 0; step < steps; step++, panel += step_bytes) {
        _tile_loadd(4, first_row + step * step_inputs, lda);
        _tile_loadd(6, panel, group_bytes);
        _tile_loadd(7, panel + half_bytes, group_bytes);
        _tile_loadd(5, low + step * step_inputs, lda);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
        // the rows of A lie far apart, which the hardware's own prefetch does not follow
        if (step + 1 < steps)
          for (int i = 0; i < 32; i++)
            _mm_prefetch(
                reinterpret_cast<const char *>(first_row + i * lda + step * step_inputs + 64),
                _MM_HINT_T0);
        prefetch.fetch(prefetch.lines);
        between(step);
      }
      _tile_stored(2, sums + 16 * ldc, ldc * 4);
      _tile_stored(3, sums + 16 * ldc + 16, ldc * 4);
    } else {
      for (int step = 0; step < steps; step++, panel += step_bytes) {
        _tile_loadd(4, first_row + step * step_inputs, lda);
        _tile_loadd(6, panel, group_bytes);
        _tile_loadd(7, panel + half_bytes, group_bytes);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        prefetch.fetch(prefetch.lines);
        between(step);
      }
    }
    _tile_stored(0, sums, ldc * 4);
    _tile_stored(1, sums + 16, ldc * 4);
  }
};

}  // namespace OI8_NAMESPACE
