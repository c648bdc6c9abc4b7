// Runs a program: every thread walks the instructions, a barrier after each (or after several
// convolutions, conv_chain.h).
#pragma once

namespace OI8_NAMESPACE {

inline int64_t scratch_bytes(const oi8_program &program, const oi8_call &call) {
  int64_t most = 64;
  for (int i = 0; i < program.instruction_count; i++) {
    const oi8_instruction &instruction = program.instructions[i];
    int64_t need = 0;
    if (instruction.op == OI8_LINEAR) need = linear_scratch(instruction);
    if (instruction.op == OI8_NORM) need = (int64_t(instruction.columns) + 16) * 4;
    if (instruction.op == OI8_CONV) need = conv_scratch(instruction);
    if (instruction.op == OI8_ATTENTION)
      need = AttentionScratch::bytes(call.key_length, instruction.columns / instruction.groups);
    if (instruction.op == OI8_FLOAT_ATTENTION) need = float_attention_scratch(instruction, call);
    if (need > most) most = need;
  }
  return (most + 4095) / 4096 * 4096;
}

inline int execute(const oi8_instruction &instruction, const Context &context) {
  switch (instruction.op) {
    case OI8_QUANTIZE: quantize(instruction, context); return OI8_OK;
    case OI8_LINEAR: linear(instruction, context); return OI8_OK;
    case OI8_NORM: norm(instruction, context); return OI8_OK;
    case OI8_ATTENTION: attention(instruction, context); return OI8_OK;
    case OI8_EMBEDDING: return embedding(instruction, context);
    case OI8_CONV: conv(instruction, context); return OI8_OK;
    case OI8_MAX_POOL: max_pool(instruction, context); return OI8_OK;
    case OI8_AVG_POOL: avg_pool(instruction, context); return OI8_OK;
    case OI8_QUANTIZE_SAMPLE: quantize_sample(instruction, context); return OI8_OK;
    case OI8_ADD: add_rows(instruction, context); return OI8_OK;
    case OI8_FLOAT_ATTENTION: float_attention(instruction, context); return OI8_OK;
    default: return OI8_BAD_ARGUMENT;
  }
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

int run(const oi8_program &program, const oi8_call &call, const Memory &memory) {
  int status = OI8_OK;
#pragma omp parallel num_threads(memory.threads)
  {
    Context context = {};
    context.program = &program, context.call = &call, context.memory = &memory;
    context.arena = memory.arena, context.padded_rows = memory.padded_rows;
    context.thread = omp_get_thread_num(), context.threads = omp_get_num_threads();
    context.scratch = memory.scratch + context.thread * memory.scratch_bytes;
    Tile::enter();
    for (int64_t first = 0, last; first < call.batch; first = last) {
      last = program.spatial ? first + 1 : group_end(context, first);
      context.first_batch = first, context.batch = last - first;
      context.first_row = program.spatial ? 0
                          : memory.start  ? memory.start[first]
                                          : first * call.length;
      for (int index = 0, count; index < program.instruction_count; index += count) {
        count = chain_length(program.instructions + index, context);
        if (count > 1) {
          conv_chain(program.instructions + index, count, context);
#pragma omp barrier
          continue;
        }
        const int result = execute(program.instructions[index], context);
        if (result != OI8_OK) {
#pragma omp atomic write
          status = result;
        }
        if (first == 0 && memory.dropped_count) clear_dropped(program.instructions[index], context);
#pragma omp barrier
      }
    }
    Tile::leave();
  }
  return status;
}

}  // namespace OI8_NAMESPACE
