// Runs a program: every thread walks the instructions, a barrier after each (or after several convolutions, conv_chain.h).
#pragma once

namespace OI8_NAMESPACE {

inline int64_t scratch_bytes(const oi8_program &program, const oi8_call &call) {
  int64_t most = 64;
  for (int i = 0; i < program.instruction_count; i++) {
    const oi8_instruction &o = program.instructions[i];
    int64_t need = 0;
    if (o.op == OI8_LINEAR) need = linear_scratch(o);
    if (o.op == OI8_NORM) need = (int64_t(o.columns) + 16) * 4;
    if (o.op == OI8_CONV) need = conv_scratch(o);
    if (o.op == OI8_ATTENTION) need = AttentionScratch::bytes(call.key_length, o.columns / o.groups);
    if (o.op == OI8_FLOAT_ATTENTION) need = float_attention_scratch(o, call);
    if (need > most) most = need;
  }
  return (most + 4095) / 4096 * 4096;
}

inline int execute(const oi8_instruction &o, const Context &ctx) {
  switch (o.op) {
    case OI8_QUANTIZE: quantize(o, ctx); return OI8_OK;
    case OI8_LINEAR: linear(o, ctx); return OI8_OK;
    case OI8_NORM: norm(o, ctx); return OI8_OK;
    case OI8_ATTENTION: attention(o, ctx); return OI8_OK;
    case OI8_EMBEDDING: return embedding(o, ctx);
    case OI8_CONV: conv(o, ctx); return OI8_OK;
    case OI8_MAX_POOL: max_pool(o, ctx); return OI8_OK;
    case OI8_AVG_POOL: avg_pool(o, ctx); return OI8_OK;
    case OI8_QUANTIZE_SAMPLE: quantize_sample(o, ctx); return OI8_OK;
    case OI8_ADD: add_rows(o, ctx); return OI8_OK;
    case OI8_FLOAT_ATTENTION: float_attention(o, ctx); return OI8_OK;
    default: return OI8_BAD_ARGUMENT;
  }
}

// Rows that the caller's arrays have and this call leaves out become zero.
inline void clear_dropped(const oi8_instruction &o, const Context &ctx) {
  const Range mine = ctx.share(ctx.memory->dropped_count);
  for (const int index : o.output)
    if (index >= 0 && ctx.is_external(index))
      for (int64_t i = mine.begin; i < mine.end; i++)
        std::memset(ctx.value<char>(index) + ctx.memory->dropped[i] * ctx.row_bytes(index), 0, ctx.row_bytes(index));
}

// Sequences that are computed together: `memory.group_rows` tokens or one sequence, so that a group's values stay in the cache from one
// operator to the next.
inline int64_t group_end(const Context &ctx, int64_t first) {
  int64_t last = first + 1;
  Context group = ctx;
  group.first_batch = first, group.first_row = 0;
  const int64_t base = group.begin(0);
  while (last < ctx.call->batch && group.begin(last + 1 - first) - base <= ctx.memory->group_rows) last++;
  return last;
}

int run(const oi8_program &program, const oi8_call &call, const Memory &memory) {
  int status = OI8_OK;
#pragma omp parallel num_threads(memory.threads)
  {
    Context ctx = {};
    ctx.program = &program, ctx.call = &call, ctx.memory = &memory;
    ctx.arena = memory.arena, ctx.padded_rows = memory.padded_rows;
    ctx.thread = omp_get_thread_num(), ctx.threads = omp_get_num_threads();
    ctx.scratch = memory.scratch + ctx.thread * memory.scratch_bytes;
    Tile::enter();
    for (int64_t first = 0, last; first < call.batch; first = last) {
      last = program.spatial ? first + 1 : group_end(ctx, first);
      ctx.first_batch = first, ctx.batch = last - first;
      ctx.first_row = program.spatial ? 0 : memory.start ? memory.start[first] : first * call.length;
      for (int i = 0, count; i < program.instruction_count; i += count) {
        count = chain_length(program.instructions + i, ctx);
        if (count > 1) {
          conv_chain(program.instructions + i, count, ctx);
#pragma omp barrier
          continue;
        }
        const int result = execute(program.instructions[i], ctx);
        if (result != OI8_OK) {
#pragma omp atomic write
          status = result;
        }
        if (first == 0 && memory.dropped_count) clear_dropped(program.instructions[i], ctx);
#pragma omp barrier
      }
    }
    Tile::leave();
  }
  return status;
}

}  // namespace OI8_NAMESPACE
