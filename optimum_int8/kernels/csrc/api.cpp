// The C interface: dispatch and memory.
#include <omp.h>

#include <cstring>
#include <vector>

#include "cpu.h"
#include "isa/isa.h"
#include "optimum_int8.h"
#include "workspace.h"

namespace {

const Isa *const isas[OI8_ISA_COUNT] = {
    &isa_portable,
#ifdef OPTIMUM_INT8_BUILT_AVX2
    &isa_avx2,
#else
    nullptr,
#endif
#ifdef OPTIMUM_INT8_BUILT_AVX512_VNNI
    &isa_avx512_vnni,
#else
    nullptr,
#endif
#ifdef OPTIMUM_INT8_BUILT_AMX
    &isa_amx,
#else
    nullptr,
#endif
};
const char *const names[OI8_ISA_COUNT] = {"portable", "avx2", "avx512_vnni", "amx"};

bool is_attention(const oi8_instruction &instruction) {
  return instruction.op == OI8_ATTENTION || instruction.op == OI8_FLOAT_ATTENTION;
}

// Whether the rows are those of keys.
bool is_of_keys(const oi8_instruction &instruction) {
  return instruction.key_side && !is_attention(instruction);
}

// The rows of a call whose mask hides padding, and nothing but padding.
class Padding {
 public:
  // Looks at the mask; afterwards `memory` describes the rows to compute.
  void find(const oi8_program &program, const oi8_call &call, Memory &memory) {
    if (!call.skip_padding || !applies(program, call)) return;
    kept_.clear(), start_.clear(), dropped_.clear();
    for (int64_t sequence = 0; sequence < call.batch; sequence++) {
      const uint8_t *mask =
          static_cast<const uint8_t *>(call.keys[0].mask) + sequence * call.keys[0].mask_stride[0];
      const bool empty = std::memchr(mask, 1, static_cast<size_t>(call.length)) == nullptr;
      start_.push_back(static_cast<int32_t>(kept_.size()));
      for (int64_t token = 0; token < call.length; token++)
        (mask[token] || empty ? kept_ : dropped_)
            .push_back(static_cast<int32_t>(sequence * call.length + token));
    }
    start_.push_back(static_cast<int32_t>(kept_.size()));
    if (dropped_.empty()) return;
    memory.kept = kept_.data(), memory.start = start_.data(), memory.dropped = dropped_.data();
    memory.dropped_count = static_cast<int64_t>(dropped_.size());
  }

 private:
  // A mask over keys alone, and linears and attention that read the arena only: their tiles take
  // rows as they lie.
  static bool applies(const oi8_program &program, const oi8_call &call) {
    const oi8_keys &keys = call.keys[0];
    if (keys.mask_kind != OI8_BOOL_MASK || keys.mask_stride[1] || keys.mask_stride[2] ||
        keys.length != call.length || call.keys[1].length)
      return false;
    for (int index = 0; index < program.instruction_count; index++) {
      const oi8_instruction &instruction = *program.instructions[index];
      if (is_of_keys(instruction) || causal(instruction)) return false;
      if (instruction.op != OI8_LINEAR && !is_attention(instruction)) continue;
      for (const int value : instruction.input)
        if (value >= 0 && program.values[value].external >= 0) return false;
    }
    return true;
  }

  static bool causal(const oi8_instruction &instruction) {
    if (instruction.op == OI8_ATTENTION)
      return reinterpret_cast<const oi8_attention &>(instruction).causal;
    if (instruction.op == OI8_FLOAT_ATTENTION)
      return reinterpret_cast<const oi8_float_attention &>(instruction).causal;
    return false;
  }

  std::vector<int32_t> kept_, start_, dropped_;
};

constexpr int64_t group_tokens = 256;

// Sequences are computed in groups where operators hand large values on, and only if no operator
// has rows of another kind.
bool can_group(const oi8_program &program, const oi8_call &call) {
  if (program.instruction_count < 2) return false;
  for (const oi8_keys &keys : call.keys)
    if (keys.length && keys.length != call.length) return false;
  for (int index = 0; index < program.instruction_count; index++)
    if (is_of_keys(*program.instructions[index])) return false;
  return true;
}

bool is_call(const oi8_call *call) {
  if (!call || call->batch < 0 || call->length < 0) return false;
  for (const oi8_keys &keys : call->keys)
    if (keys.length < 0) return false;
  return true;
}

// Gives each job its memory, which they share one after the other, and runs them.
int run_jobs(int isa, Job *jobs, int count) {
  thread_local Workspace workspace;
  const Workspace::Use use(workspace);
  const int threads = omp_get_max_threads();
  int64_t arena_bytes = 0, scratch_bytes = 0;
  for (Job *job = jobs; job < jobs + count; job++) {
    const oi8_call &call = *job->call;
    Memory &memory = job->memory;
    int64_t longest = call.length;
    for (const oi8_keys &keys : call.keys) longest = longest > keys.length ? longest : keys.length;
    memory.threads = threads;
    memory.group_rows = can_group(*job->program, call) ? group_tokens : INT64_MAX;
    const int64_t rows = longest > memory.group_rows ? longest
                         : int64_t(call.batch) * longest < memory.group_rows
                             ? int64_t(call.batch) * longest
                             : memory.group_rows;
    // attention reads tiles that start at any row and reach up to 31 rows past the last
    memory.padded_rows = job->program->spatial ? 1 : (rows + 31) / 32 * 32 + 32;
    memory.scratch_bytes = isas[isa]->scratch_bytes(*job->program, call);
    const int64_t arena = memory.padded_rows * job->program->arena_row_bytes + 4096;
    if (arena > arena_bytes) arena_bytes = arena;
    if (memory.scratch_bytes > scratch_bytes) scratch_bytes = memory.scratch_bytes;
  }
  char *const arena = workspace.arena.at_least(arena_bytes);
  char *const scratch = workspace.scratch.at_least(scratch_bytes * threads);
  if (!arena || !scratch) return OI8_OUT_OF_MEMORY;
  for (Job *job = jobs; job < jobs + count; job++)
    job->memory.arena = arena, job->memory.scratch = scratch;
  return isas[isa]->run(jobs, count);
}

}  // namespace

int oi8_abi(void) { return OI8_ABI; }

int oi8_isa_built(int isa) { return isa >= 0 && isa < OI8_ISA_COUNT && isas[isa] != nullptr; }

int oi8_isa_available(int isa) { return oi8_isa_built(isa) && cpu_allows(isa); }

const char *oi8_isa_name(int isa) { return isa >= 0 && isa < OI8_ISA_COUNT ? names[isa] : ""; }

int64_t oi8_prepare_weight(int isa, const void *weight, int64_t panels, int32_t steps, void *out) {
  if (!oi8_isa_available(isa) || !isas[isa]->prepare_weight) return 0;
  return isas[isa]->prepare_weight(static_cast<const int8_t *>(weight), panels, steps,
                                   static_cast<char *>(out));
}

int64_t oi8_release_memory(void) { return Workspace::release_all(); }

int oi8_run(int isa, const oi8_program *program, const oi8_call *call) {
  thread_local Padding padding;
  if (!program || !is_call(call)) return OI8_BAD_ARGUMENT;
  if (!oi8_isa_available(isa)) return OI8_UNSUPPORTED_ISA;
  if (call->batch == 0 || call->length == 0) return OI8_OK;
  Job job = {program, call, {}};
  padding.find(*program, *call, job.memory);
  return run_jobs(isa, &job, 1);
}

int oi8_run_all(int isa, const oi8_program *const *programs, const oi8_call *calls, int count) {
  thread_local std::vector<Job> jobs;
  if (count < 0 || (count && (!programs || !calls))) return OI8_BAD_ARGUMENT;
  if (!oi8_isa_available(isa)) return OI8_UNSUPPORTED_ISA;
  jobs.clear();
  for (int index = 0; index < count; index++) {
    if (!programs[index] || !is_call(calls + index)) return OI8_BAD_ARGUMENT;
    if (calls[index].batch && calls[index].length)
      jobs.push_back({programs[index], calls + index, {}});
  }
  return jobs.empty() ? OI8_OK : run_jobs(isa, jobs.data(), static_cast<int>(jobs.size()));
}
