// The namespace of all that is compiled once per instruction set: it keeps the copies apart, so
// that the linker never takes one with instructions that a CPU lacks.
#pragma once

#ifndef OI8_NAMESPACE
#define OI8_NAMESPACE oi8_alone  // of a header that is compiled by itself
#endif
