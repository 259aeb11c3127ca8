// No bugs: kernels of which tests of the emulation itself know what they do.
#include "gpu.cuh"

// A block's numbers go around ten times, with a barrier before each reading.
KERNEL probe_ten_barriers(float* x) {
  wait_for_launch_before();
  SHARED(float, part, [256]);
  float sum = x[threadIdx.x];
  for (int i = 0; i < 5; i++) {
    part[(threadIdx.x + i) % 256] = sum;
    __syncthreads();
    sum += part[threadIdx.x];
    __syncthreads();
  }
  x[threadIdx.x] = sum * 0.f;
}

KERNEL probe_ten_shuffles(float* x) {
  wait_for_launch_before();
  float sum = x[threadIdx.x];
  for (int i = 0; i < 10; i++) sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  x[threadIdx.x] = sum * 0.f;
}
