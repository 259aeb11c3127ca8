// The one header that kernels include: CUDA's words and a few primitives of ours, for a device and for the
// emulation.
//
// NVRTC and nvcc take the first half, thin wrappers over PTX. A C++ compiler takes emulate/runtime, where the
// same names work on a CPU: a primitive that is added here is added there too.
#pragma once

#ifdef __CUDACC__
#ifdef __CUDACC_RTC__
typedef unsigned int uint32_t;
typedef unsigned short uint16_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

// A kernel; with the threads of a block, and the blocks that shall fit on a multiprocessor.
#define KERNEL extern "C" __global__ void
#define KERNEL_OF(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)

// Arrays in shared memory: with a size, `SHARED(float, part, [32])`, and what the launch asks for.
#define SHARED(T, name, dims) __shared__ T name dims
#define SHARED_DYN(T, name)                                        \
  extern __shared__ __align__(128) unsigned char gpu_dyn_smem[];   \
  T* name = reinterpret_cast<T*>(gpu_dyn_smem)

__device__ inline uint32_t smem_u32(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// ---- Tensor cores: d += a * b over 16 x 8 x 16, all 32 lanes, bf16 and f16 with f32 sums.

__device__ inline void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_16816_half(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Fragments from shared memory: each lane names a row of 16 bytes, eight lanes a matrix of 8 x 8 numbers of
// 16 bits.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(smem_u32(row)) : "memory");
}
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(smem_u32(row)) : "memory");
}
__device__ inline void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1},[%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(smem_u32(row)) : "memory");
}
__device__ inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1},[%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(smem_u32(row)) : "memory");
}

// ---- Copies of 16 bytes to shared memory that run beside the thread; zeros where not `valid`. A thread
// closes a group of them, and waits until at most N groups are still open; what others copied it sees behind
// a barrier.

__device__ inline void cp_async16(void* to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;"
               :: "r"(smem_u32(to)), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}

// ---- Over all 32 lanes of a warp; every lane gets the same bits.

__device__ inline float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}
__device__ inline float warp_max(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}
__device__ inline int warp_max_int(int v) { return __reduce_max_sync(0xffffffffu, v); }
__device__ inline int warp_sum_int(int v) { return __reduce_add_sync(0xffffffffu, v); }

// ---- Programmatic dependent launch: behind the first a kernel may read what the launch before wrote; once
// all blocks have come to the second, the next launch may begin.

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ inline void wait_for_launch_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ inline void let_next_launch_begin() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
#else
__device__ inline void wait_for_launch_before() {}
__device__ inline void let_next_launch_begin() {}
#endif

// ---- Loads of what is read once and never written during the launch: weights.

__device__ inline uint4 load_once(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3},[%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}
__device__ inline uint2 load_once(const uint2* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1},[%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
__device__ inline uint32_t load_once(const uint32_t* p) {
  uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0,[%1];" : "=r"(v) : "l"(p));
  return v;
}

// ---- Arithmetic.

// (word & mask) | bits in one instruction, which compilers make two of where both are constants.
__device__ inline uint32_t and_or(uint32_t word, uint32_t mask, uint32_t bits) {
  uint32_t d;
  asm("lop3.b32 %0,%1,%2,%3,0xea;" : "=r"(d) : "r"(word), "r"(mask), "r"(bits));
  return d;
}
// a - b of two pairs of bf16, each rounded once.
__device__ inline uint32_t sub_bf16x2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0,%1,%2,%3;" : "=r"(d) : "r"(b), "r"(0xbf80bf80u), "r"(a));
  return d;
}
// a * b + c of pairs of bf16, each rounded once.
__device__ inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0,%1,%2,%3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
// 2^x to about two units in the last place; 1 for 0, 0 for -infinity.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}

// The same value, of which the compiler does not know where it comes from: it is kept instead of computed
// again.
template <class T> __device__ inline T* opaque(T* p) {
  asm volatile("" : "+l"(p));
  return p;
}
__device__ inline int opaque(int i) {
  asm volatile("" : "+r"(i));
  return i;
}

// ---- Between blocks: a counter that the last block to arrive sees full. A loop that polls says so.

#define SPIN_HINT() ((void)0)
__device__ inline unsigned ld_acquire(const unsigned* p) {
  unsigned v;
  asm volatile("ld.acquire.gpu.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ inline unsigned atom_add_release(unsigned* p, unsigned v) {
  unsigned before;
  asm volatile("atom.add.release.gpu.u32 %0,[%1],%2;" : "=r"(before) : "l"(p), "r"(v) : "memory");
  return before;
}
#else
#include "emulate/runtime/device.h"
#endif

typedef __nv_bfloat16 bf16;
typedef __half f16;

__device__ inline uint32_t pack_f16(float lo, float hi) {
  __half2 v = __floats2half2_rn(lo, hi);
  return *reinterpret_cast<uint32_t*>(&v);
}
__device__ inline uint32_t pack_bf16(float lo, float hi) {
  __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<uint32_t*>(&v);
}
