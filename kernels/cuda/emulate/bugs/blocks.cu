// Planted bugs: what blocks, and launches, expect of each other.
#include "gpu.cuh"

// Each block adds to what the block before it left, as if they ran one after the other.
KERNEL bug_block_order(float* sums, int blocks) {
  wait_for_launch_before();
  if (threadIdx.x != 0) return;
  const float before = blockIdx.x ? sums[blockIdx.x - 1] : 0.f;  // named
  sums[blockIdx.x] = before + 1.f;
}

// All blocks write to one place.
KERNEL bug_race_of_blocks(float* sums, int blocks) {
  wait_for_launch_before();
  if (threadIdx.x == 0) sums[0] = float(blockIdx.x);  // named
}

// All blocks read, add and write, where they should do so at once; what lies between gives others their turn.
KERNEL bug_sum_without_atomic(float* sums, int blocks) {
  wait_for_launch_before();
  if (threadIdx.x != 0) return;
  const float before = sums[0];  // named
  __threadfence();
  sums[0] = before + 1.f;
}

// The last block to arrive adds up what all have written, but leaves the counter as it is for the next
// launch.
KERNEL bug_counter_not_reset(float* sums, int blocks) {
  wait_for_launch_before();
  unsigned* counter = reinterpret_cast<unsigned*>(sums + blocks);
  if (threadIdx.x != 0) return;
  sums[blockIdx.x] = 1.f;
  __threadfence();
  if (atomicAdd(counter, 1) != unsigned(blocks) - 1) return;
  float all = 0.f;
  for (int i = 0; i < blocks; i++) all += sums[i];
  sums[blocks + 1] += all;
}

// The block that comes last adds up, but the counter says that another has written before it has.
KERNEL bug_counts_before_writing(float* sums, int blocks) {
  wait_for_launch_before();
  unsigned* counter = reinterpret_cast<unsigned*>(sums + blocks);
  if (threadIdx.x != 0) return;
  const bool last = atomicAdd(counter, 1) == unsigned(blocks) - 1;
  __threadfence();
  sums[blockIdx.x] = 1.f;
  if (!last) return;
  float all = 0.f;
  for (int i = 0; i < blocks; i++) all += sums[i];
  sums[blocks + 1] += all;
  *counter = 0;
}

// The last block to arrive reads what others wrote, but they may still be writing: no fence lies before their
// arrival.
KERNEL bug_missing_fence(float* sums, int blocks) {
  wait_for_launch_before();
  unsigned* counter = reinterpret_cast<unsigned*>(sums + blocks);
  if (threadIdx.x != 0) return;
  sums[blockIdx.x] = 1.f;
  if (atomicAdd(counter, 1) != unsigned(blocks) - 1) return;
  float all = 0.f;
  for (int i = 0; i < blocks; i++) all += sums[i];  // named
  sums[blocks + 1] += all;
  *counter = 0;
}

// As it should be: all write, a fence, the counter, a barrier; the last block reads, and puts the counter
// back.
KERNEL probe_last_block(float* sums, int blocks) {
  SHARED(bool, last, [1]);
  wait_for_launch_before();
  unsigned* counter = reinterpret_cast<unsigned*>(sums + blocks);
  if (threadIdx.x == 37) sums[blockIdx.x] = 1.f;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last[0] = atomicAdd(counter, 1) == unsigned(blocks) - 1;
  }
  __syncthreads();
  if (!last[0]) return;
  if (threadIdx.x == 5) {
    for (int i = 0; i < blocks; i++) sums[blocks + 1] += sums[i];
  }
  if (threadIdx.x == 0) *counter = 0;
}

// Every block waits for all the others, which a device need not have room for.
KERNEL bug_all_resident(float* sums, int blocks) {
  wait_for_launch_before();
  unsigned* counter = reinterpret_cast<unsigned*>(sums + blocks);
  if (threadIdx.x == 0) {
    atom_add_release(counter, 1);
    while (ld_acquire(counter) < unsigned(blocks)) SPIN_HINT();  // named
  }
  __syncthreads();
  if (threadIdx.x == 0) sums[blockIdx.x] = 1.f;
}
