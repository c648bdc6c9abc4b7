// Every operator, compiled for portable. The namespace keeps the four copies apart.
#define OI8_NAMESPACE oi8_portable
#include <omp.h>

#include "isa.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#include "vector_portable.h"
//
#include "tile_portable.h"
//
#include "../ops/context.h"
#include "../ops/math.h"
#include "../ops/quantize.h"
#include "../ops/norm.h"
#include "../ops/linear.h"
#include "../ops/embedding.h"
#include "../ops/conv_epilogue.h"
#include "../ops/windows.h"
#include "../ops/conv.h"
#include "../ops/conv_chain.h"
#include "../ops/pool.h"
#include "../ops/add.h"
#include "../ops/attention_pack.h"
#include "../ops/attention.h"
#include "../ops/float_tile.h"
#include "../ops/float_product.h"
#include "../ops/float_attention.h"
#include "../ops/run.h"

const Isa isa_portable = {oi8_portable::scratch_bytes, oi8_portable::run, nullptr};
