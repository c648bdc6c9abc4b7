// Every operator, compiled for portable.
#define OI8_NAMESPACE oi8_portable
#define OI8_VECTOR "vector_portable.h"
#define OI8_TILE "tile_portable.h"

#include "../ops/run.h"

const Isa isa_portable = {oi8_portable::scratch_bytes, oi8_portable::run, nullptr};
