// Every operator, compiled for amx.
#define OI8_NAMESPACE oi8_amx
#define OI8_VECTOR "vector_avx512.h"
#define OI8_TILE "tile_amx.h"

#include "../ops/run.h"

const Isa isa_amx = {oi8_amx::scratch_bytes, oi8_amx::run, nullptr};
