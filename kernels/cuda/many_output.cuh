// What becomes of a product's sums: bias, activation function, rounding, and where they are written.
#pragma once
#include "activation.cuh"

enum OutputKind { NUMBERS, ROUNDED, GELU, ADDED, GATED };

// Where outputs go: f32 (NUMBERS; ADDED to what is there) or bf16 (the others).
struct Output {
  void* to;
  int stride;  // numbers from row to row
  int kind;
  int columns;        // of a row; of GATED the gated ones
  bool vectors;       // whether all is a multiple of four: columns, those of each part, strides, addresses
  const float* bias;  // [columns], of GATED the gates' and then the others'; or null
};

// W is 4 where `vectors` holds, else 1.
template <int W>
__device__ inline void read(float (&v)[W], const float* from) {
  if constexpr (W == 4) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
  } else {
    v[0] = *from;
  }
}

template <int W>
__device__ inline void add(float (&v)[W], const float* from) {
  float more[W];
  read(more, from);
#pragma unroll
  for (int e = 0; e < W; e++) v[e] += more[e];
}

template <int W>
__device__ inline void write_rounded(bf16* to, const float (&v)[W]) {
  if constexpr (W == 4) *reinterpret_cast<uint2*>(to) = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3])};
  else *to = __float2bfloat16(v[0]);
}

// W neighbouring sums of a row.
template <int W>
__device__ inline void put(const Output& out, int row, int col, float (&v)[W]) {
  if (out.bias) add(v, out.bias + col);
  const size_t at = size_t(row) * out.stride + col;
  if (out.kind == NUMBERS || out.kind == ADDED) {
    float* to = static_cast<float*>(out.to) + at;
    if (out.kind == ADDED) add(v, to);
    if constexpr (W == 4) *reinterpret_cast<float4*>(to) = {v[0], v[1], v[2], v[3]};
    else *to = v[0];
    return;
  }
  if (out.kind == GELU)
    for (float& x : v) x = gelu_tanh(x);
  write_rounded(static_cast<bf16*>(out.to) + at, v);
}

// As `put`, for what gates and what they gate have given.
template <int W>
__device__ inline void put_gated(const Output& out, int row, int col, float (&gate)[W], float (&up)[W]) {
  if (out.bias) add(gate, out.bias + col), add(up, out.bias + out.columns + col);
#pragma unroll
  for (int e = 0; e < W; e++) gate[e] = gelu_tanh(gate[e]) * up[e];
  write_rounded(static_cast<bf16*>(out.to) + size_t(row) * out.stride + col, gate);
}
