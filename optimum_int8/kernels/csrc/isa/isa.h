// What each ISA's translation unit offers to api.cpp.
#pragma once
#include <cstdint>

#include "../optimum_int8.h"

// Working memory of one call, owned by the calling thread.
struct Memory {
  char *arena;
  int64_t padded_rows;
  char *scratch;  // scratch_bytes for each thread
  int64_t scratch_bytes;
  int threads;
  // Without padding: of each row that is computed, its place in the caller's arrays, and the first
  // row of each sequence; the rows left out. Null when all rows are computed.
  const int32_t *kept, *start, *dropped;
  int64_t dropped_count;
  int64_t group_rows;
};

// A program, its call and what it works in.
struct Job {
  const oi8_program *program;
  const oi8_call *call;
  Memory memory;
};

struct Isa {
  int64_t (*scratch_bytes)(const oi8_program &, const oi8_call &);
  // One after the other, with the threads of the first; the first that fails is the last.
  int (*run)(const Job *jobs, int count);
  // Writes the prepared form of so many panels of so many steps; returns its bytes, and only that
  // without a place to write to. Null where the panels are all that is needed.
  int64_t (*prepare_weight)(const int8_t *weight, int64_t panels, int steps, char *out);
};

extern const Isa isa_portable, isa_avx2, isa_avx512_vnni, isa_amx;
