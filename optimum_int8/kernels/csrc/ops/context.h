// What an operator sees of a running program: its values, its thread, its scratch memory.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../isa/isa.h"
#include "../isa/namespace.h"

namespace OI8_NAMESPACE {

// Calls body(i, count) for each 16 columns of n: `count` is 16 except perhaps at the end. Whole
// vectors take loads and stores without masks when the compiler sees the constant.
template <class Body>
inline __attribute__((always_inline)) void by_16(int count, Body &&body) {
  int i = 0;
  for (; i + 16 <= count; i += 16) body(i, std::integral_constant<int, 16>());
  if (i < count) body(i, count - i);
}

struct Range {
  int64_t begin, end;
};

// Of n pieces of work, for one of so many.
inline Range share_of(int64_t pieces, int64_t one, int64_t many) {
  return {pieces * one / many, pieces * (one + 1) / many};
}

// The keys that an instruction names, the first where it names none.
inline const oi8_keys &keys_of(const oi8_call &call, const oi8_instruction &instruction) {
  return call.keys[instruction.key_side > 0 ? instruction.key_side - 1 : 0];
}

struct Context {
  const oi8_program *program;
  const oi8_call *call;
  char *arena;
  int64_t padded_rows;
  int thread, threads;
  char *scratch;  // this thread's, of `scratch_bytes`
  const Memory *memory;
  int64_t first_batch, batch;  // the group of sequences that is computed now
  int position;                // in the program, of the instruction that is computed now
  int64_t first_row;           // of the group, among all rows that are computed

  int64_t rows(const oi8_instruction &instruction) const {
    if (program->spatial)
      return program
          ->values[instruction.output[0] >= 0 ? instruction.output[0] : instruction.output[1]]
          .rows;
    return instruction.key_side ? batch * keys(instruction).length : begin(batch);
  }
  // What an attention reads, or whose rows these are.
  const oi8_keys &keys(const oi8_instruction &instruction) const {
    return keys_of(*call, instruction);
  }
  // First row of a sequence of the group, counted from the group's first.
  int64_t begin(int64_t sequence) const {
    return memory->start ? memory->start[first_batch + sequence] - first_row
                         : sequence * call->length;
  }
  bool is_external(int index) const { return program->values[index].external >= 0; }
  // Where a row of the group lies in the caller's arrays.
  int64_t outside(int64_t row_index) const {
    return memory->kept ? memory->kept[first_row + row_index] : first_row + row_index;
  }

  template <class Type>
  Type *value(int index) const {
    const oi8_value &described = program->values[index];
    const int64_t entry = program->spatial ? first_batch * described.rows * described.row_bytes : 0;
    return reinterpret_cast<Type *>(
        described.external >= 0 ? static_cast<char *>(call->external[described.external]) + entry
                                : arena + described.offset * padded_rows);
  }
  int64_t row_bytes(int index) const { return program->values[index].row_bytes; }
  template <class Type>
  Type *row(int index, int64_t row_index) const {
    if (is_external(index))
      row_index =
          program->values[index].periodic ? outside(row_index) % call->length : outside(row_index);
    return reinterpret_cast<Type *>(value<char>(index) + row_index * row_bytes(index));
  }
  // This thread's share of n pieces of work.
  Range share(int64_t pieces) const { return share_of(pieces, thread, threads); }
};

}  // namespace OI8_NAMESPACE
