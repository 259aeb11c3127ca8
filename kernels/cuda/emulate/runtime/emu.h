// CPU stand-in for the CUDA device side: every CUDA thread is a fiber of one OS thread.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <algorithm>
#include <string>
#include <utility>
#ifndef BUG
#define BUG 0
#endif
#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
using std::min; using std::max;
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(8) int2 { int x, y; };
struct emu_uint3 { unsigned x, y, z; };
namespace emu {
struct Fiber; struct Block;
struct Ctx { emu_uint3 tid, bid, bdim, gdim; int lane; };
extern thread_local Ctx* cur;
enum Op { SHFL, BALLOT, SYNCWARP, MMA, MMAH, LDM, LDMT, REDUCE };
typedef void (*Leader)(void** slots, unsigned mask);
void warp_op(Op op, unsigned mask, void* slot, Leader leader, int line);
void barrier(int line);
void spin(int line);
void* static_shared(const void* site, size_t bytes);
void* dyn_shared();
void cp_async(void* dst, const void* src, bool valid); void cp_commit(); void cp_wait(int n);
typedef void (*Entry)(void* fn, void** args);
void reg(const char* name, void* fn, Entry e);
template <class... A, size_t... I> inline void call(void (*f)(A...), void** a, std::index_sequence<I...>) { f(*reinterpret_cast<A*>(a[I])...); }
template <class... A> struct Thunk { static void go(void* fn, void** a) { call(reinterpret_cast<void (*)(A...)>(fn), a, std::index_sequence_for<A...>{}); } };
template <class... A> inline int add(const char* n, void (*f)(A...)) { reg(n, reinterpret_cast<void*>(f), &Thunk<A...>::go); return 0; }
template <class T> struct Sh { T in, out; int src; };
template <class T> inline T shfl(unsigned mask, T v, int src, int line) {
  Sh<T> s{v, v, src};
  warp_op(SHFL, mask, &s, [](void** sl, unsigned m) {
    for (int i = 0; i < 32; i++) if (m >> i & 1) { auto* d = static_cast<Sh<T>*>(sl[i]); int f = d->src & 31; d->out = (m >> f & 1) ? static_cast<Sh<T>*>(sl[f])->in : d->in; }
  }, line);
  return s.out;
}
inline unsigned ballot(unsigned mask, bool p, int line) {
  Sh<unsigned> s{p, 0, 0};
  warp_op(BALLOT, mask, &s, [](void** sl, unsigned m) {
    unsigned r = 0; for (int i = 0; i < 32; i++) if (m >> i & 1) r |= static_cast<Sh<unsigned>*>(sl[i])->in << i;
    for (int i = 0; i < 32; i++) if (m >> i & 1) static_cast<Sh<unsigned>*>(sl[i])->out = r; }, line);
  return s.out;
}
void mma_leader(void** slots, unsigned mask); void mmah_leader(void** slots, unsigned mask); void ldm_leader(void** slots, unsigned mask); void ldmt_leader(void** slots, unsigned mask);
template <class T, class F> inline T reduce(T v, F f, int line) {
  struct Re { T v; F* f; } s{v, &f};
  warp_op(REDUCE, 0xffffffffu, &s, [](void** sl, unsigned m) {
    // As five shuffles by 16, 8, 4, 2, 1 do it: every lane gets the same bits.
    T a[32]; for (int i = 0; i < 32; i++) a[i] = (m >> i & 1) ? static_cast<Re*>(sl[i])->v : T();
    for (int o = 16; o; o >>= 1) { T b[32]; for (int i = 0; i < 32; i++) b[i] = (*static_cast<Re*>(sl[i])->f)(a[i], a[i ^ o]); memcpy(a, b, sizeof a); }
    for (int i = 0; i < 32; i++) if (m >> i & 1) static_cast<Re*>(sl[i])->v = a[i];
  }, line);
  return s.v;
}
struct Mma { float* d; const uint32_t *a, *b; };
struct Ldm { uint32_t* r; const void* row; int n; };
}
#define threadIdx (emu::cur->tid)
#define blockIdx (emu::cur->bid)
#define blockDim (emu::cur->bdim)
#define gridDim (emu::cur->gdim)
#define __syncthreads() emu::barrier(__LINE__)
#define __syncwarp(...) emu::warp_op(emu::SYNCWARP, 0xffffffffu, nullptr, nullptr, __LINE__)
#define __shfl_xor_sync(m, v, o) emu::shfl(m, v, emu::cur->lane ^ (o), __LINE__)
#define __shfl_sync(m, v, s) emu::shfl(m, v, s, __LINE__)
#define __shfl_down_sync(m, v, o) emu::shfl(m, v, emu::cur->lane + (o) > 31 ? emu::cur->lane : emu::cur->lane + (o), __LINE__)
#define __ballot_sync(m, p) emu::ballot(m, p, __LINE__)
#define SPIN_HINT() emu::spin(__LINE__)
inline unsigned ld_acquire(const unsigned* p) { return *p; }
inline unsigned atom_add_release(unsigned* p, unsigned v) { unsigned o = *p; *p = o + v; return o; }
#define KERNEL extern "C" void
#define KERNEL_OF(threads, blocks) extern "C" void
#define SHARED(T, name, dims) static const char name##_site = 0; typedef T name##_t dims; name##_t& name = *static_cast<name##_t*>(emu::static_shared(&name##_site, sizeof(name##_t)))
#define SHARED_DYN(T, name) T* name = static_cast<T*>(emu::dyn_shared())
#define mma_16816(d, a, b) do { emu::Mma s_{d, a, b}; emu::warp_op(emu::MMA, 0xffffffffu, &s_, emu::mma_leader, __LINE__); } while (0)
#define mma_16816_half(d, a, b) do { emu::Mma s_{d, a, b}; emu::warp_op(emu::MMAH, 0xffffffffu, &s_, emu::mmah_leader, __LINE__); } while (0)
#define warp_sum(v) emu::reduce<float>(v, [](float a, float b) { return a + b; }, __LINE__)
#define warp_sum_int(v) emu::reduce<int>(v, [](int a, int b) { return a + b; }, __LINE__)
#define warp_max(v) emu::reduce<float>(v, [](float a, float b) { return fmaxf(a, b); }, __LINE__)
#define warp_max_int(v) emu::reduce<int>(v, [](int a, int b) { return a > b ? a : b; }, __LINE__)
inline float exp2_fast(float x) { return std::exp2(x); }
inline float __fdividef(float a, float b) { return a / b; }
#define ldmatrix_x4(r, p) do { emu::Ldm s_{r, p, 4}; emu::warp_op(emu::LDM, 0xffffffffu, &s_, emu::ldm_leader, __LINE__); } while (0)
#define ldmatrix_x4_trans(r, p) do { emu::Ldm s_{r, p, 4}; emu::warp_op(emu::LDMT, 0xffffffffu, &s_, emu::ldmt_leader, __LINE__); } while (0)
#define ldmatrix_x2(r, p) do { emu::Ldm s_{r, p, 2}; emu::warp_op(emu::LDM, 0xffffffffu, &s_, emu::ldm_leader, __LINE__); } while (0)
#define ldmatrix_x2_trans(r, p) do { emu::Ldm s_{r, p, 2}; emu::warp_op(emu::LDMT, 0xffffffffu, &s_, emu::ldmt_leader, __LINE__); } while (0)
inline void cp_async16(void* d, const void* s, bool v) { emu::cp_async(d, s, v); }
inline void cp_async_commit() { emu::cp_commit(); }
template <int N> inline void cp_async_wait() { emu::cp_wait(N); }
template <class T> inline T atomicAdd(T* p, T v) { T o = *p; *p = o + v; return o; }  // one OS thread: plain is atomic
template <class T> inline T __ldg(const T* p) { return *p; }
inline void __threadfence() {}
inline void wait_for_launch_before() {}
inline void let_next_launch_begin() {}
#ifdef __F16C__
#include <immintrin.h>
#endif
struct __half { uint16_t x; };
struct __half2 { __half x, y; };
inline float __half2float(__half h) { return _cvtsh_ss(h.x); }
inline __half __float2half(float f) { return {uint16_t(_cvtss_sh(f, 0))}; }
inline __half2 __floats2half2_rn(float a, float b) { return {__float2half(a), __float2half(b)}; }
template <class T> inline T load_once(const T* p) { return *p; }
inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
struct __nv_bfloat16 { uint16_t x; };
struct __nv_bfloat162 { __nv_bfloat16 x, y; };
inline float __bfloat162float(__nv_bfloat16 h) { uint32_t u = uint32_t(h.x) << 16; float f; memcpy(&f, &u, 4); return f; }
inline __nv_bfloat16 __float2bfloat16(float f) {
  uint32_t u; memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {uint16_t((u + 0x7fffu + (u >> 16 & 1)) >> 16)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__float2bfloat16(a), __float2bfloat16(b)}; }
inline uint32_t sub_bf16x2(uint32_t a, uint32_t b) {
  auto at = [](uint32_t v, int i) { return __bfloat162float({uint16_t(v >> 16 * i)}); };
  auto sub = [&](int i) { return uint32_t(__float2bfloat16(at(a, i) - at(b, i)).x) << 16 * i; };
  return sub(0) | sub(1);
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
