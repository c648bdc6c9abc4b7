// What this machine can run.
#pragma once

// CPU, operating system and, for AMX, the kernel's permission allow the ISA (an enum oi8_isa).
bool cpu_allows(int isa);

// Whether the tiles of AMX also multiply bfloat16.
bool cpu_has_bfloat16_tiles();
