// Products of few rows: weights times activations, on tensor cores or in f32.
#pragma once
#include "few_work.cuh"

// Numbers from a row's partial sums of 16 outputs to the next row's: more than 16, against bank conflicts.
#define PARTIAL_STRIDE 20

// Sums of a lane. In bf16 those of the mma's D: outputs g and g + 8, rows 8 c + 2 t and one more. In f32,
// before the four lanes of a g are added up, of outputs g and g + 8 and every row.
template <bool EXACT, int TILES> struct Sums {
  float tile[EXACT ? 2 : TILES][EXACT ? 8 : 4];

  __device__ void clear() {
#pragma unroll
    for (int c = 0; c < (EXACT ? 2 : TILES); c++)
#pragma unroll
      for (int i = 0; i < (EXACT ? 8 : 4); i++) tile[c][i] = 0.f;
  }

  // Adds a group of weights times activations.
  template <int F>
  __device__ void add(const unsigned char* group, const unsigned char* head, const unsigned char* x, int lane,
                      int n) {
#pragma unroll (EXACT ? 1 : 2)
    for (int half = 0; half < 2; half++) {
      if constexpr (EXACT) {
        add_exact<F>(group, head, x, lane, half, n);
      } else {
        add_tiles<F>(group, head, x, lane, half, n);
      }
    }
  }

  template <int F>
  __device__ void add_exact(const unsigned char* group, const unsigned char* head, const unsigned char* x,
                            int lane, int half, int n) {
    float weight[2][8];
    numbers<F>(group, head, lane, half, weight);
#pragma unroll
    for (int row = 0; row < 8; row++) {
      if (row >= n) break;
      const unsigned char* chunk = x + Slice<true>::chunk_at(row, 8 * half + lane % 4 * 2);
      const float4* at = reinterpret_cast<const float4*>(chunk);
      const float4 low = at[0], high = at[1];
      const float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < 8; i++) {
        tile[0][row] = fmaf(weight[0][i], values[i], tile[0][row]);
        tile[1][row] = fmaf(weight[1][i], values[i], tile[1][row]);
      }
    }
  }

  // Quantised weights meet the activations as whole numbers; scales and minimums come to the sums.
  template <int F>
  __device__ void add_tiles(const unsigned char* group, const unsigned char* head, const unsigned char* x,
                            int lane, int half, int n) {
    const int g = lane / 4, t = lane % 4;
    uint32_t a[2][4];
    fragment<F>(group, lane, half, a);
#pragma unroll
    for (int c = 0; c < TILES; c++) {
      const int row = 8 * c + g;
      uint4 b = {0, 0, 0, 0};
      if (row < n) b = *reinterpret_cast<const uint4*>(x + Slice<false>::chunk_at(row, 4 * half + t));
      if (F == BF16) {
        multiply(tile[c], a, b);
      } else if (F == Q6_K) {
#pragma unroll
        for (int part = 0; part < 2; part++) {
          const uint32_t mine = t / 2 == part ? ~0u : 0u;
          float raw[4] = {0.f, 0.f, 0.f, 0.f};
          multiply(raw, a, uint4{b.x & mine, b.y & mine, b.z & mine, b.w & mine});
          const Scales s = scales<F>(group, head, lane, half, part);
#pragma unroll
          for (int i = 0; i < 4; i++) tile[c][i] = fmaf(s.scale[i / 2], raw[i], tile[c][i]);
        }
      } else {
        float raw[4] = {0.f, 0.f, 0.f, 0.f};
        multiply(raw, a, b);
        const Scales s = scales<F>(group, head, lane, half, 0);
#pragma unroll
        for (int i = 0; i < 4; i++) tile[c][i] = fmaf(s.scale[i / 2], raw[i], tile[c][i]);
        if (fragment_bias(F) == 0.f) continue;
        float total[4] = {0.f, 0.f, 0.f, 0.f};
        const uint32_t ones[2][4] = {{0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u},
                                     {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u}};
        multiply(total, ones, b);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float offset = fmaf(s.scale[i / 2], fragment_bias(F), s.minimum[i / 2]);
          tile[c][i] = fmaf(-offset, total[i], tile[c][i]);
        }
      }
    }
  }

  __device__ static void multiply(float (&d)[4], const uint32_t (&a)[2][4], const uint4& b) {
    const uint32_t low[2] = {b.x, b.y}, high[2] = {b.z, b.w};
    mma_16816(d, a[0], low);
    mma_16816(d, a[1], high);
  }

  // Writes them to a warp's place, [row][output].
  __device__ void write(float* to, int lane, int n) {
    const int g = lane / 4, t = lane % 4;
    if constexpr (EXACT) {
#pragma unroll
      for (int row = 0; row < 8; row++) {
        if (row >= n) break;
#pragma unroll
        for (int r = 0; r < 2; r++) {
          float sum = tile[r][row];
          sum += __shfl_xor_sync(0xffffffffu, sum, 1);
          sum += __shfl_xor_sync(0xffffffffu, sum, 2);
          if (t == 0) to[row * PARTIAL_STRIDE + g + 8 * r] = sum;
        }
      }
    } else {
#pragma unroll
      for (int c = 0; c < TILES; c++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int row = 8 * c + 2 * t + i % 2;
          if (row < n) to[row * PARTIAL_STRIDE + g + 8 * (i / 2)] = tile[c][i];
        }
    }
  }
};
