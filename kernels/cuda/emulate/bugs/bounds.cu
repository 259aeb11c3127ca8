// Planted bugs: accesses outside of memory, and to where they may not go. A line that is to be named ends
// with the mark.
#include "gpu.cuh"

// One number too many.
KERNEL bug_writes_behind(float* out, int len) {
  wait_for_launch_before();
  for (int i = threadIdx.x; i <= len; i += blockDim.x) out[i] = 1.f;  // named
}

// A row of a matrix that has fewer of them.
KERNEL bug_writes_far_behind(float* out, int len) {
  wait_for_launch_before();
  out[threadIdx.x] = 1.f;
  out[100 * len + threadIdx.x] = 1.f;  // named
}

// An index that became negative.
KERNEL bug_writes_in_front(float* out, int len) {
  wait_for_launch_before();
  if (threadIdx.x < len) out[int(threadIdx.x) - 1] = 1.f;
}

// Reads one number too many, and does nothing with it that could be seen.
KERNEL bug_reads_behind(float* out, int len) {
  wait_for_launch_before();
  float most = 0.f;
  for (int i = threadIdx.x; i <= len; i += blockDim.x) most = fmaxf(most, out[i]);  // named
  if (most > 0.f) out[0] = most;
}

KERNEL bug_writes_behind_shared(float* out, int len) {
  SHARED(float, part, [64]);
  wait_for_launch_before();
  float* const all = part;
  for (int i = threadIdx.x; i < len; i += blockDim.x) all[i] = 1.f;  // named
  __syncthreads();
  out[threadIdx.x] = part[threadIdx.x % 64];
}

KERNEL bug_reads_behind_dynamic_shared(float* out, int len) {
  SHARED_DYN(float, part);
  wait_for_launch_before();
  if (threadIdx.x < 64) part[threadIdx.x] = 1.f;
  __syncthreads();
  out[threadIdx.x] = part[threadIdx.x];  // named
}

// A vector from where no vector may begin.
KERNEL bug_misaligned(float* out, int len) {
  wait_for_launch_before();
  out[threadIdx.x] = reinterpret_cast<const float4*>(out + 1)->x;  // named
}

KERNEL bug_misaligned_copy(float* out, int len) {
  SHARED(float, part, [64]);
  wait_for_launch_before();
  if (threadIdx.x == 0) cp_async16(part, out + 2, true);  // named
  cp_async_commit();
  cp_async_wait<0>();
}
