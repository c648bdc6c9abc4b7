// Every operator, compiled for avx2.
#define OI8_NAMESPACE oi8_avx2
#define OI8_VECTOR "vector_avx2.h"
#define OI8_TILE "tile_avx2.h"

#include "../ops/run.h"

const Isa isa_avx2 = {oi8_avx2::scratch_bytes, oi8_avx2::run, oi8_avx2::prepare_weight};
