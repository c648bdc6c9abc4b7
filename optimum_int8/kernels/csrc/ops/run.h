// Runs a program: every thread walks the instructions, a barrier after each (or after several
// convolutions, conv_chain.h).
#pragma once
#include <omp.h>

#include <cstring>

#include "add.h"
#include "append.h"
#include "append_int8.h"
#include "attention.h"
#include "context.h"
#include "conv_chain.h"
#include "embedding.h"
#include "embedding_bag.h"
#include "float_attention.h"
#include "gated.h"
#include "head_norm.h"
#include "linear.h"
#include "norm.h"
#include "operator.h"
#include "pool.h"
#include "quantize.h"
#include "recurrent.h"
#include "rotary.h"
#include "take_heads.h"

namespace OI8_NAMESPACE {

struct Operators {
  Operator table[OI8_OP_COUNT] = {};

  constexpr Operators() {
    table[OI8_QUANTIZE] = {run_as<quantize>, nullptr, true};
    table[OI8_LINEAR] = {run_as<linear>, scratch_as<linear_scratch>};
    table[OI8_NORM] = {run_as<norm>, scratch_as<norm_scratch>, true};
    table[OI8_ATTENTION] = {run_as<attention>, scratch_as<attention_scratch>};
    table[OI8_EMBEDDING] = {run_as<embedding>, nullptr, true};
    table[OI8_CONV] = {run_as<conv>, scratch_as<conv_scratch>};
    table[OI8_MAX_POOL] = {run_as<max_pool>, nullptr};
    table[OI8_AVG_POOL] = {run_as<avg_pool>, nullptr};
    table[OI8_QUANTIZE_SAMPLE] = {run_as<quantize_sample>, nullptr};
    table[OI8_ADD] = {run_as<add_rows>, nullptr, true};
    table[OI8_FLOAT_ATTENTION] = {run_as<float_attention>, scratch_as<float_attention_scratch>};
    table[OI8_RECURRENT] = {run_as<recurrent>, scratch_as<recurrent_scratch>};
    table[OI8_EMBEDDING_BAG] = {run_as<embedding_bag>, nullptr};
    table[OI8_GATED] = {run_as<gated>, scratch_as<gated_scratch>, true};
    table[OI8_ROTARY] = {run_as<rotary>, nullptr, true};
    table[OI8_HEAD_NORM] = {run_as<head_norm>, nullptr, true};
    table[OI8_APPEND] = {run_as<append>, nullptr};
    table[OI8_TAKE_HEADS] = {run_as<take_heads>, nullptr, true};
    table[OI8_APPEND_INT8] = {run_as<append_int8>, nullptr, true};
  }
  constexpr bool complete() const {
    for (const Operator &it : table)
      if (!it.run) return false;
    return true;
  }
  // Null for a number that is none.
  const Operator *find(int op) const { return op >= 0 && op < OI8_OP_COUNT ? &table[op] : nullptr; }
};

constexpr Operators operators;
static_assert(operators.complete(), "every operator of enum oi8_op has a kernel");

inline int64_t scratch_bytes(const oi8_program &program, const oi8_call &call) {
  constexpr int64_t page = 4096;
  int64_t most = 64;
  for (int i = 0; i < program.instruction_count; i++) {
    const oi8_instruction &instruction = *program.instructions[i];
    const Operator *const found = operators.find(instruction.op);
    const int64_t need = found && found->scratch ? found->scratch(instruction, call) : 0;
    if (need > most) most = need;
  }
  return (most + page - 1) / page * page;
}

inline int execute(const oi8_instruction &instruction, const Context &context) {
  const Operator *const found = operators.find(instruction.op);
  return found ? found->run(instruction, context) : OI8_BAD_ARGUMENT;
}

// Rows that the caller's arrays have and this call leaves out become zero.
inline void clear_dropped(const oi8_instruction &instruction, const Context &context) {
  const Range mine = context.share(context.memory->dropped_count);
  for (const int index : instruction.output)
    if (index >= 0 && context.is_external(index))
      for (int64_t i = mine.begin; i < mine.end; i++)
        std::memset(
            context.value<char>(index) + context.memory->dropped[i] * context.row_bytes(index), 0,
            context.row_bytes(index));
}

// Sequences that are computed together: `memory.group_rows` tokens or one sequence, so that a
// group's values stay in the cache from one operator to the next.
inline int64_t group_end(const Context &context, int64_t first) {
  int64_t last = first + 1;
  Context group = context;
  group.first_batch = first, group.first_row = 0;
  const int64_t base = group.begin(0);
  while (last < context.call->batch &&
         group.begin(last + 1 - first) - base <= context.memory->group_rows)
    last++;
  return last;
}

// Whether one thread computes this instruction and the next, so that nobody waits in between: a
// single row is always the same thread's.
inline bool next_follows(const Context &context) {
  const oi8_program &program = *context.program;
  if (context.call->batch != 1 || context.call->length != 1 || program.spatial ||
      context.position + 1 >= program.instruction_count)
    return false;
  for (int position = context.position; position < context.position + 2; position++) {
    const oi8_instruction &instruction = *program.instructions[position];
    const Operator *const found = operators.find(instruction.op);
    const bool of_keys = instruction.key_side && instruction.op != OI8_APPEND_INT8;
    if (!found || !found->by_rows || of_keys) return false;
  }
  return true;
}

// What each thread does of a program; `status` gets what went wrong.
inline void walk(Context &context, int &status) {
  const oi8_program &program = *context.program;
  const oi8_call &call = *context.call;
  const Memory &memory = *context.memory;
  for (int64_t first = 0, last; first < call.batch; first = last) {
    last = program.spatial ? first + 1 : group_end(context, first);
    context.first_batch = first, context.batch = last - first;
    context.first_row = program.spatial ? 0
                        : memory.start  ? memory.start[first]
                                        : first * call.length;
    for (int index = 0, count; index < program.instruction_count; index += count) {
      context.position = index;
      count = chain_length(context);
      if (count > 1) {
        conv_chain(count, context);
#pragma omp barrier
        continue;
      }
      const int result = execute(*program.instructions[index], context);
      if (result != OI8_OK) {
#pragma omp atomic write
        status = result;
      }
      if (first == 0 && memory.dropped_count) clear_dropped(*program.instructions[index], context);
      if (next_follows(context)) continue;
#pragma omp barrier
    }
  }
}

int run(const Job *jobs, int count) {
  int status = OI8_OK;
#pragma omp parallel num_threads(jobs[0].memory.threads)
  {
    Tile::enter();
    for (int index = 0; index < count; index++) {
      const Memory &memory = jobs[index].memory;
      Context context = {};
      context.program = jobs[index].program, context.call = jobs[index].call;
      context.memory = &memory, context.arena = memory.arena;
      context.padded_rows = memory.padded_rows;
      context.thread = omp_get_thread_num(), context.threads = omp_get_num_threads();
      context.scratch = memory.scratch + context.thread * memory.scratch_bytes;
      walk(context, status);
      int so_far;
#pragma omp atomic read
      so_far = status;
      if (so_far != OI8_OK) break;  // every thread is behind the last barrier, and sees the same
    }
    Tile::leave();
  }
  return status;
}

}  // namespace OI8_NAMESPACE
