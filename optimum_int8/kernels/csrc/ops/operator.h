// What the table of operators (run.h) holds, and how it is made from a kernel: a function of its
// operator's struct and the context.
#pragma once
#include <cstddef>
#include <type_traits>

#include "../optimum_int8.h"
#include "context.h"

namespace OI8_NAMESPACE {

struct Operator {
  // What one thread does; an enum oi8_status.
  int (*run)(const oi8_instruction &instruction, const Context &context);
  // Bytes of memory of its own that a thread needs for it; null where it needs none.
  int64_t (*scratch)(const oi8_instruction &instruction, const oi8_call &call);
  // Threads share the call's rows, and each reads and writes none but its own.
  bool by_rows = false;
};

// The struct of an operator, of which an instruction is the beginning.
template <class Parameters>
inline const Parameters &parameters_of(const oi8_instruction &instruction) {
  static_assert(offsetof(Parameters, head) == 0, "a pointer to the one is a pointer to the other");
  return reinterpret_cast<const Parameters &>(instruction);
}

template <class Parameters, class Result, class Other>
Parameters parameters_type(Result (*)(const Parameters &, const Other &));

// A kernel that returns nothing cannot fail.
template <auto kernel>
inline int run_as(const oi8_instruction &instruction, const Context &context) {
  const auto &parameters = parameters_of<decltype(parameters_type(kernel))>(instruction);
  if constexpr (std::is_void_v<decltype(kernel(parameters, context))>) {
    kernel(parameters, context);
    return OI8_OK;
  } else {
    return kernel(parameters, context);
  }
}

template <auto scratch>
inline int64_t scratch_as(const oi8_instruction &instruction, const oi8_call &call) {
  return scratch(parameters_of<decltype(parameters_type(scratch))>(instruction), call);
}

}  // namespace OI8_NAMESPACE
