// Every operator, compiled for avx512_vnni.
#define OI8_NAMESPACE oi8_avx512_vnni
#define OI8_VECTOR "vector_avx512.h"
#define OI8_TILE "tile_avx512_vnni.h"

#include "../ops/run.h"

const Isa isa_avx512_vnni = {oi8_avx512_vnni::scratch_bytes, oi8_avx512_vnni::run, nullptr};
