// Planted bugs: reads of what was never written.
#include "gpu.cuh"

// Half of a shared array is written, all of it is summed.
KERNEL bug_unwritten_shared(const float* x, float* out) {
  SHARED(float, part, [256]);
  wait_for_launch_before();
  if (threadIdx.x < 128) part[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = part[threadIdx.x] + 1.f;
}

// What the launch finds in `out` was never written.
KERNEL bug_unwritten_global(const float* x, float* out) {
  wait_for_launch_before();
  out[threadIdx.x] += x[threadIdx.x];
}

// What the block before left in shared memory is not there for the next one.
KERNEL bug_shared_of_block_before(const float* x, float* out) {
  SHARED(float, kept, [1]);
  wait_for_launch_before();
  if (blockIdx.x == 0 && threadIdx.x == 0) kept[0] = x[0];
  __syncthreads();
  out[threadIdx.x] = kept[0];
}
