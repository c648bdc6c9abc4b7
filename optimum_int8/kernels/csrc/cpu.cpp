#include "cpu.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "optimum_int8.h"

namespace {

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers registers = {0, 0, 0, 0};
  if (__get_cpuid_max(0, nullptr) >= leaf)
    __cpuid_count(leaf, subleaf, registers.eax, registers.ebx, registers.ecx, registers.edx);
  return registers;
}

bool bit(uint32_t word, int position) { return word >> position & 1; }

// Register states that the operating system saves.
uint64_t enabled_states() {
  if (!bit(cpuid(1, 0).ecx, 27)) return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

bool has(uint64_t states, uint64_t wanted) { return (states & wanted) == wanted; }

// Linux grants the AMX tile data state per process, on request.
bool amx_permission() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

bool detect(int isa) {
  constexpr uint64_t avx = 0x6, avx512 = 0xe6, tiles = 0x60000;
  const Registers leaf7 = cpuid(7, 0);
  const uint64_t states = enabled_states();
  const bool fma = bit(cpuid(1, 0).ecx, 12);
  const bool avx2 = has(states, avx) && bit(cpuid(1, 0).ecx, 28) && bit(leaf7.ebx, 5) && fma;
  const bool vnni = avx2 && has(states, avx512) && bit(leaf7.ebx, 16) && bit(leaf7.ebx, 17) &&
                    bit(leaf7.ebx, 30) && bit(leaf7.ebx, 31) && bit(leaf7.ecx, 11);
  switch (isa) {
    case OI8_PORTABLE: return true;
    case OI8_AVX2: return avx2;
    case OI8_AVX512_VNNI: return vnni;
    case OI8_AMX:
      return vnni && has(states, tiles) && bit(leaf7.edx, 24) && bit(leaf7.edx, 25) &&
             amx_permission();
    default: return false;
  }
}

}  // namespace

bool cpu_allows(int isa) {
  static const bool allowed[OI8_ISA_COUNT] = {detect(OI8_PORTABLE), detect(OI8_AVX2),
                                              detect(OI8_AVX512_VNNI), detect(OI8_AMX)};
  return isa >= 0 && isa < OI8_ISA_COUNT && allowed[isa];
}

bool cpu_has_bfloat16_tiles() {
  static const bool has_bfloat16 = bit(cpuid(7, 0).edx, 22);
  return has_bfloat16 && cpu_allows(OI8_AMX);
}
