// A query's or key's way from the product to attention: its norm, its rotation by position, its rounding.
#pragma once
#include "gpu.cuh"

__device__ inline void put(float* to, float number) { *to = number; }
// The greatest f16 for what is greater: infinity times the weight 0 would spoil rows that do not see it.
__device__ inline void put(f16* to, float number) {
  *to = __float2half(fminf(fmaxf(number, -65504.f), 65504.f));
}

// How heads are turned; a value only changes its type, by neither a norm nor a rotation.
struct Turn {
  const float* frequencies;  // [rotated / 2]; an angle is a position times one of them
  int rotated;               // numbers of a head that are rotated, its first ones
  float eps;
};

// Cosine and sine of an angle, to 2e-7: by quarter turns, of which there may be 2^22, then Taylor's series.
__device__ inline float2 direction(float angle) {
  const float quarters = rintf(angle * 0.636619772f);
  const float rest = fmaf(quarters, 4.37113883e-8f, fmaf(quarters, -1.57079637f, angle)),
              square = rest * rest;
  const float sine = fmaf(fmaf(fmaf(fmaf(2.75573192e-6f, square, -1.98412698e-4f), square, 8.33333333e-3f),
                               square, -1.66666667e-1f),
                          square * rest, rest);
  const float cosine =
      fmaf(fmaf(fmaf(fmaf(fmaf(-2.75573192e-7f, square, 2.48015873e-5f), square, -1.38888889e-3f), square,
                     4.16666667e-2f),
                square, -0.5f),
           square, 1.f);
  const int quarter = static_cast<int>(quarters);
  const float x = quarter & 1 ? sine : cosine, y = quarter & 1 ? cosine : sine;
  return float2{(quarter + 1) & 2 ? -x : x, quarter & 2 ? -y : y};
}

// One head of `dim` numbers, by a warp: RMSNorm (Zhang and Sennrich 2019) if it has a weight, then the
// rotation of its halves (Su et al. 2021); zeros from `dim` to `padded`.
template <class T>
__device__ inline void turn(const float* raw, const float* norm, Turn how, int dim, int padded, int position,
                            T* to) {
  const int lane = threadIdx.x & 31, half = how.rotated / 2;
  float scale = 1.f;
  if (norm) {
    float squares = 0.f;
    for (int i = lane; i < dim; i += 32) squares += raw[i] * raw[i];
    scale = rsqrtf(warp_sum(squares) / dim + how.eps);
  }
  const auto number = [&](int i) { return norm ? raw[i] * scale * norm[i] : raw[i]; };
#pragma unroll 2
  for (int i = lane; i < half; i += 32) {
    const float a = number(i), b = number(i + half);
    const float2 to_here = direction(position * how.frequencies[i]);
    put(to + i, a * to_here.x - b * to_here.y);
    put(to + i + half, b * to_here.x + a * to_here.y);
  }
#pragma unroll 2
  for (int i = how.rotated + lane; i < padded; i += 32) put(to + i, i < dim ? number(i) : 0.f);
}

