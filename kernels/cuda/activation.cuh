// Activation functions, and how the numbers between two products are stored.
#pragma once
#include "gpu.cuh"

// 1 / (1 + e^-x)
__device__ inline float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// x * Phi(x) in its tanh approximation (Hendrycks and Gimpel 2016). Since (1 + tanh u) / 2 is the sigmoid of
// 2u, nothing cancels where x is below zero.
__device__ inline float gelu_tanh(float x) {
  constexpr float TWICE_ROOT = 1.5957691216057308f;  // 2 sqrt(2 / pi)
  return x * sigmoid(TWICE_ROOT * (x + 0.044715f * x * x * x));
}

// Activation numbers: f32 where all is exact, else bf16.
__device__ inline void store_number(float* at, float number) { *at = number; }
__device__ inline void store_number(bf16* at, float number) { *at = __float2bfloat16(number); }

// Number `i` of `numbers`.
__device__ inline void store_number(void* numbers, size_t i, float number, bool exact) {
  if (exact) {
    store_number(static_cast<float*>(numbers) + i, number);
  } else {
    store_number(static_cast<bf16*>(numbers) + i, number);
  }
}

// Numbers `i` to `i + 3` of `numbers`; `i` is a multiple of 4.
__device__ inline void store_four(void* numbers, size_t i, float4 four, bool exact) {
  if (exact) {
    *reinterpret_cast<float4*>(static_cast<float*>(numbers) + i) = four;
  } else {
    const uint2 packed = {pack_bf16(four.x, four.y), pack_bf16(four.z, four.w)};
    *reinterpret_cast<uint2*>(static_cast<bf16*>(numbers) + i) = packed;
  }
}
