// In place of csrc/cpu.cpp: everything is allowed, because what the processor may lack is emulated.
#include "cpu.h"

bool cpu_allows(int) { return true; }

bool cpu_has_bfloat16_tiles() { return true; }
