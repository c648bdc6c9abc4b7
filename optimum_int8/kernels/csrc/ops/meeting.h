// Where the threads of a call meet many times within one operator.
//
// Without sleeping at first: a step between two meetings takes microseconds, and a thread that
// sleeps on a busy machine waits milliseconds until it is woken. Who waits for longer than a time
// slice gives way to others, which may be those that are waited for.
#pragma once
#include <sched.h>

#include <atomic>
#include <cstdint>

#include "../isa/namespace.h"

namespace OI8_NAMESPACE {

class Meeting {
 public:
  static constexpr int64_t bytes = 64;  // a line of the cache of its own

  // All threads, before the first `wait`; `place` is theirs together.
  static Meeting *begin(void *place, int thread) {
    Meeting *const meeting = static_cast<Meeting *>(place);
    if (thread == 0) meeting->arrived_.store(0, std::memory_order_relaxed);
#pragma omp barrier
    return meeting;
  }

  // Returns once so many threads have called it `rounds` times; what they wrote before is seen.
  void wait(int threads, int64_t rounds) {
    constexpr int spins = 1 << 15;
    const int64_t all = threads * rounds;
    arrived_.fetch_add(1, std::memory_order_acq_rel);
    for (int spin = 0; arrived_.load(std::memory_order_acquire) < all; spin++)
      if (spin < spins)
        __builtin_ia32_pause();
      else
        sched_yield();
  }

 private:
  std::atomic<int64_t> arrived_;
};

static_assert(sizeof(Meeting) <= Meeting::bytes, "it lies in the scratch of the first thread");

}  // namespace OI8_NAMESPACE
