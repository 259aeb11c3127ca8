// Planted bugs: what threads of a block owe each other. A line that is to be named ends with the mark.
#include "gpu.cuh"

// Each thread reads what its neighbour wrote, which may not have come so far.
KERNEL bug_missing_barrier(const float* x, float* out) {
  SHARED(float, part, [256]);
  wait_for_launch_before();
  part[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = part[(threadIdx.x + 32) % blockDim.x];  // named
}

// Only half of the block comes to the barrier.
KERNEL bug_divergent_barrier(const float* x, float* out) {
  wait_for_launch_before();
  if (threadIdx.x < 128) __syncthreads();  // named
  out[threadIdx.x] = x[threadIdx.x];
}

// Two halves of the block, each at a barrier of its own.
KERNEL bug_two_barriers(const float* x, float* out) {
  wait_for_launch_before();
  if (threadIdx.x < 128) {
    __syncthreads();  // named
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = x[threadIdx.x];
}

// A sum over all lanes to which the last lane does not come.
KERNEL bug_missing_lane(const float* x, float* out) {
  wait_for_launch_before();
  float sum = x[threadIdx.x];
  if (threadIdx.x % 32 != 31) sum = warp_sum(sum);  // named
  out[threadIdx.x] = sum;
}

// As before, but the last lane waits elsewhere: everything stands still.
KERNEL bug_lane_elsewhere(const float* x, float* out) {
  wait_for_launch_before();
  float sum = x[threadIdx.x];
  if (threadIdx.x % 32 != 31) sum = warp_sum(sum);  // named
  __syncthreads();
  out[threadIdx.x] = sum;
}

// A lane that is not in the mask it gives.
KERNEL bug_lane_outside_mask(const float* x, float* out) {
  wait_for_launch_before();
  out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, x[threadIdx.x], 1);  // named
}

// Waits as if another group of copies had been asked for behind this one.
KERNEL bug_wrong_wait(const float* x, float* out) {
  SHARED(float, part, [256]);
  wait_for_launch_before();
  if (threadIdx.x < 64) cp_async16(part + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  out[threadIdx.x] = part[threadIdx.x];
  cp_async_wait<0>();
}

// Never waits for its copies at all.
KERNEL bug_no_wait(const float* x, float* out) {
  SHARED(float, part, [256]);
  wait_for_launch_before();
  if (threadIdx.x < 64) cp_async16(part + 4 * threadIdx.x, x + 4 * threadIdx.x, true);  // named
  cp_async_commit();
  out[threadIdx.x] = x[threadIdx.x];
}

// May begin before the launch before has ended, and does not wait for it.
KERNEL bug_no_wait_for_launch(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x]; }

// Reads what the launch before wrote, and only then waits for it.
KERNEL bug_reads_before_waiting(const float* x, float* out) {
  const float before = out[threadIdx.x];  // named
  wait_for_launch_before();
  out[threadIdx.x] = before + x[threadIdx.x];
}

// Lanes read what other lanes of their warp wrote, which nothing orders.
KERNEL bug_missing_syncwarp(const float* x, float* out) {
  SHARED(float, part, [256]);
  wait_for_launch_before();
  part[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = part[threadIdx.x ^ 1];  // named
}

// A barrier behind the reads is missing: the next turn overwrites what others still read.
KERNEL bug_missing_barrier_behind(const float* x, float* out) {
  SHARED(float, part, [256]);
  wait_for_launch_before();
  float sum = 0.f;
  for (int i = 0; i < 3; i++) {
    part[threadIdx.x] = x[threadIdx.x] + i;  // named
    __syncthreads();
    sum += part[(threadIdx.x + 32) % blockDim.x];
  }
  out[threadIdx.x] = sum;
}

// Waits for a flag that nobody sets.
KERNEL bug_polls_for_ever(const float* x, float* out) {
  wait_for_launch_before();
  while (ld_acquire(reinterpret_cast<const unsigned*>(x)) != 7) SPIN_HINT();  // named
  out[threadIdx.x] = 0.f;
}
