// Every operator, compiled for avx2. The namespace keeps the four copies apart.
#define OI8_NAMESPACE oi8_avx2
#include <omp.h>

#include "isa.h"
#include "vector_avx2.h"
//
#include "tile_avx2.h"
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
#include "../ops/winograd.h"
#include "../ops/conv_chain.h"
#include "../ops/pool.h"
#include "../ops/add.h"
#include "../ops/attention_pack.h"
#include "../ops/attention.h"
#include "../ops/float_tile.h"
#include "../ops/float_product.h"
#include "../ops/float_attention.h"
#include "../ops/run.h"

const Isa isa_avx2 = {oi8_avx2::scratch_bytes, oi8_avx2::run, oi8_avx2::prepare_weight};
