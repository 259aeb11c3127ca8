// Shared memory of a block, as a kernel declares it.
#pragma once
#include <atomic>
#include <cstddef>

namespace emulation {

// A declaration of a shared array, known by a number once it was met.
struct SharedArray {
  const char* name;
  size_t bytes;
  std::atomic<int> number{0};
};

void* shared_array(SharedArray& array);
void* dynamic_shared();

}  // namespace emulation

#define SHARED(T, name, dims)                                          \
  using name##_t = T dims;                                             \
  static emulation::SharedArray name##_array{#name, sizeof(name##_t)}; \
  name##_t& name = *static_cast<name##_t*>(emulation::shared_array(name##_array))
#define SHARED_DYN(T, name) T* name = static_cast<T*>(emulation::dynamic_shared())
