// CUDA's conversions and arithmetic functions. Approximate ones are exact here: their rounding is the
// device's own.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "types.h"
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace emulation {

template <class To, class From> inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

#ifdef __F16C__
inline float of_half(uint16_t half) { return _cvtsh_ss(half); }
inline uint16_t to_half(float number) { return uint16_t(_cvtss_sh(number, 0)); }
#else
inline float of_half(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, rest = half & 0x7fff;
  if (rest >= 0x7c00) return bits<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  // The exponent's bias is 112 less than an f32's; a multiplication normalises what is subnormal.
  const float scaled = bits<float>(rest << 13) * bits<float>(uint32_t(127 + 112) << 23);
  return bits<float>(sign | bits<uint32_t>(scaled));
}

inline uint16_t to_half(float number) {
  const uint32_t all = bits<uint32_t>(number), rest = all & 0x7fffffff;
  const uint16_t sign = uint16_t(all >> 16 & 0x8000);
  if (rest > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (rest >= 0x477ff000) return uint16_t(sign | 0x7c00);  // 65520 and more
  if (rest < 0x38800000) {
    // Subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the last bits.
    return uint16_t(sign | (bits<uint32_t>(bits<float>(rest) + 0.5f) - 0x3f000000));
  }
  const uint32_t rounded = rest + 0xfff + (rest >> 13 & 1);
  return uint16_t(sign | (rounded - (112u << 23)) >> 13);
}
#endif

inline float of_bfloat(uint16_t number) { return bits<float>(uint32_t(number) << 16); }

inline uint16_t to_bfloat(float number) {
  const uint32_t all = bits<uint32_t>(number);
  if ((all & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return uint16_t((all + 0x7fff + (all >> 16 & 1)) >> 16);
}

}  // namespace emulation

inline float __half2float(__half h) { return emulation::of_half(h.x); }
inline __half __float2half(float f) { return {emulation::to_half(f)}; }
inline __half __float2half_rn(float f) { return __float2half(f); }
inline __half2 __floats2half2_rn(float low, float high) { return {__float2half(low), __float2half(high)}; }
inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
inline float __low2float(__half2 h) { return __half2float(h.x); }
inline float __high2float(__half2 h) { return __half2float(h.y); }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half h) { return h.x; }

inline float __bfloat162float(__nv_bfloat16 b) { return emulation::of_bfloat(b.x); }
inline __nv_bfloat16 __float2bfloat16(float f) { return {emulation::to_bfloat(f)}; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __float2bfloat16(f); }
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {__float2bfloat16(low), __float2bfloat16(high)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 b) { return {__bfloat162float(b.x), __bfloat162float(b.y)}; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.x; }

inline float __uint_as_float(unsigned u) { return emulation::bits<float>(u); }
inline unsigned __float_as_uint(float f) { return emulation::bits<unsigned>(f); }
inline float __int_as_float(int i) { return emulation::bits<float>(i); }
inline int __float_as_int(float f) { return emulation::bits<int>(f); }
inline int __float2int_rn(float f) { return int(std::nearbyint(f)); }
inline int __float2int_rd(float f) { return int(std::floor(f)); }

// Two bf16 in a word each, every result rounded once.
inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  using emulation::of_bfloat, emulation::to_bfloat;
  const auto one = [=](int at) {
    const auto of = [=](uint32_t two) { return of_bfloat(uint16_t(two >> at)); };
    return uint32_t(to_bfloat(std::fma(of(a), of(b), of(c)))) << at;
  };
  return one(0) | one(16);
}
inline uint32_t sub_bf16x2(uint32_t a, uint32_t b) { return fma_bf16x2(b, 0xbf80bf80u, a); }

inline float exp2_fast(float x) { return std::exp2(x); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline void __sincosf(float x, float* sine, float* cosine) { *sine = std::sin(x), *cosine = std::cos(x); }

inline uint32_t and_or(uint32_t word, uint32_t mask, uint32_t bits) { return (word & mask) | bits; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

// Four bytes of the eight of `low` and `high`, by the low three bits of each half byte of `which`.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned which) {
  const uint64_t both = uint64_t(high) << 32 | low;
  unsigned out = 0;
  for (int i = 0; i < 4; i++) out |= unsigned(both >> 8 * (which >> 4 * i & 7) & 0xff) << 8 * i;
  return out;
}

inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; i++) sum += int(int8_t(a >> 8 * i)) * int(int8_t(b >> 8 * i));
  return sum;
}

inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 4; i++) sum += (a >> 8 * i & 0xff) * (b >> 8 * i & 0xff);
  return sum;
}

// On a device, a hint to its compiler.
template <class T> inline T opaque(T value) { return value; }
