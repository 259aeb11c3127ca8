// A thread of a block: where it is, barriers, fences, and atomics on global memory.
#pragma once

#include "site.h"
#include "types.h"

namespace emulation {

struct BlockPosition {
  uint3 index, threads, blocks;
};

struct Position {
  uint3 thread;
  int lane;
  const BlockPosition* block;
};

// The thread that runs. `__thread` and the model: a read costs one load, where `thread_local` would cost a
// call.
extern __thread Position* self __attribute__((tls_model("initial-exec")));

// Every thread of the block arrives here before one goes on.
void barrier(Site site);

// Something atomic is done to an address next. Others may take their turn here: what is atomic is the only
// thing that threads may expect to see others change.
enum class Meeting { Relaxed, Release, Acquire };
void meet(const void* at, Meeting kind);

// What this thread wrote before is seen by those that meet it after.
void fence();

// The thread polls: the others take their turns before it looks again.
void spin(Site site);

// Notes that this thread waits for the launch before.
void wait_for_launch();

// Not told of to those who watch accesses: it races with nothing.
#define EMULATION_UNTOLD __attribute__((no_sanitize("thread")))

template <class T, class Change>
EMULATION_UNTOLD inline T atomic(T* at, Change change, Meeting kind = Meeting::Relaxed) {
  meet(at, kind);
  const T before = *at;
  *at = change(before);
  return before;
}

// So that `atomicAdd(counter, 1)` takes an `unsigned* counter`, as CUDA's overloads do.
template <class T> struct AsGiven {
  using Type = T;
};

}  // namespace emulation

#define threadIdx (emulation::self->thread)
#define blockIdx (emulation::self->block->index)
#define blockDim (emulation::self->block->threads)
#define gridDim (emulation::self->block->blocks)

inline void __syncthreads(emulation::Site site = emulation::Site::here()) { emulation::barrier(site); }
inline void __threadfence() { emulation::fence(); }
inline void __threadfence_block() {}
#define SPIN_HINT() emulation::spin(emulation::Site::here())

inline void wait_for_launch_before() { emulation::wait_for_launch(); }
inline void let_next_launch_begin() {}

EMULATION_UNTOLD inline unsigned ld_acquire(const unsigned* at) {
  emulation::meet(at, emulation::Meeting::Acquire);
  return *at;
}
inline unsigned atom_add_release(unsigned* at, unsigned value) {
  return emulation::atomic(at, [=](unsigned before) { return before + value; }, emulation::Meeting::Release);
}
template <class T> inline T atomicAdd(T* at, typename emulation::AsGiven<T>::Type value) {
  return emulation::atomic(at, [=](T before) { return before + value; });
}
template <class T> inline T atomicMax(T* at, typename emulation::AsGiven<T>::Type value) {
  return emulation::atomic(at, [=](T before) { return before < value ? value : before; });
}
template <class T> inline T atomicMin(T* at, typename emulation::AsGiven<T>::Type value) {
  return emulation::atomic(at, [=](T before) { return value < before ? value : before; });
}
template <class T> inline T atomicExch(T* at, typename emulation::AsGiven<T>::Type value) {
  return emulation::atomic(at, [=](T) { return value; });
}
template <class T> inline T atomicCAS(T* at, typename emulation::AsGiven<T>::Type expected,
                                      typename emulation::AsGiven<T>::Type value) {
  return emulation::atomic(at, [=](T before) { return before == expected ? value : before; });
}

template <class T> inline T __ldg(const T* at) { return *at; }
template <class T> inline T load_once(const T* at) { return *at; }
