// The vectors and the integer tile that the operators are compiled with: <isa>.cpp names their
// headers before it includes anything. A header that is compiled by itself takes what the
// compiler's flags allow.
#pragma once
#include "namespace.h"

#ifndef OI8_VECTOR
#if defined(__AVX512VNNI__)
#define OI8_VECTOR "vector_avx512.h"
#elif defined(__AVX2__)
#define OI8_VECTOR "vector_avx2.h"
#else
#define OI8_VECTOR "vector_portable.h"
#endif
#endif

#ifndef OI8_TILE
#if defined(__AMX_INT8__)
#define OI8_TILE "tile_amx.h"
#elif defined(__AVX512VNNI__)
#define OI8_TILE "tile_avx512_vnni.h"
#elif defined(__AVX2__)
#define OI8_TILE "tile_avx2.h"
#else
#define OI8_TILE "tile_portable.h"
#endif
#endif

#include OI8_VECTOR
//
#include OI8_TILE
