// The residual stream and root mean square norms (Zhang and Sennrich 2019), where they are computed row by
// row and where products compute them for themselves: both give the same bits. Threads 0 to 255 take four
// numbers of a row each, then the next 1,024, and products that feed sums are fused by name and not at a
// compiler's will.
#pragma once
#include "gpu.cuh"

#define NORM_THREADS 256
#define NORM_WARPS (NORM_THREADS / 32)

// Four numbers of a row in f32; `at` is aligned to 16 bytes.
__device__ inline float4 four(const float* at) { return *reinterpret_cast<const float4*>(at); }

// `sum` and the squares of four numbers.
__device__ inline float add_squares(float4 v, float sum) {
  return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}
// The sum of NORM_WARPS numbers, those that warps have put down.
__device__ inline float sum_of_warps(const float* numbers) {
  float sum = 0.f;
#pragma unroll
  for (int warp = 0; warp < NORM_WARPS; warp++) sum += numbers[warp];
  return sum;
}
__device__ inline float inverse_rms(float sum_of_squares, int width, float eps) {
  return 1.f / sqrtf(sum_of_squares / width + eps);
}
// v * scale * weight
__device__ inline float4 normed(float4 v, float scale, float4 weight) {
  return {v.x * scale * weight.x, v.y * scale * weight.y, v.z * scale * weight.z, v.w * scale * weight.w};
}
// v + y
__device__ inline float4 plus(float4 v, float4 y) { return {v.x + y.x, v.y + y.y, v.z + y.z, v.w + y.w}; }
// v + y * scale * weight
__device__ inline float4 plus_normed(float4 v, float4 y, float scale, float4 weight) {
  return {fmaf(y.x * scale, weight.x, v.x), fmaf(y.y * scale, weight.y, v.y),
          fmaf(y.z * scale, weight.z, v.z), fmaf(y.w * scale, weight.w, v.w)};
}
