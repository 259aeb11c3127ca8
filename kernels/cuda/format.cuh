// How weights lie in a device's memory, and how the lanes of a warp read them.
//
// A matrix [outputs, inputs] consists of groups of 16 outputs x 64 inputs; what is missing there is zeros.
// The groups of the same 16 outputs, a *row of groups*, follow each other along the inputs, and the rows of
// groups follow each other. A group is in the registers' order of mma.m16n8k16's A operand, but for one
// thing: the inputs of each 32 are dealt out so that a lane's are next to each other, so that activations are
// read as they lie in memory.
//
// Lane (g = lane / 4, t = lane % 4) holds outputs g and g + 8, and of each half h of the group (32 inputs, a
// half is two mma tiles) the eight inputs 32 h + 8 t + i. Register p < 4 of tile j < 2 holds of output
// g + 8 (p % 2) the pair of inputs i = 4 j + 2 (p / 2) and i + 1, the first in the lower bits. The B operand
// that belongs to that takes for tile j the pairs i = 4 j and i = 4 j + 2 of a row of activations: eight bf16
// in a row, 16 bytes, are the B registers of both tiles.
//
// Of a group, in this order (bytes; T = 2 h + j is a tile's place in it):
//   numbers  F32   4096  at ((2 T + r) 32 + lane) 16: output g + 8 r, inputs i = 4 j .. 4 j + 3
//            BF16  2048  at (32 T + lane) 16: registers 0 to 3
//            Q8_0  1024  at (32 h + lane) 16: word 2 j + p / 2, register p in bytes p % 2 and 2 more
//            else   512  at 16 lane: word T, the low four bits for register p at bits 4 p and 16 more
//   high     Q5_*   128  at 4 lane: the fifth bits for tile T, register p at bits 4 T + p and 16 more
//            Q6_K   256  at 8 lane: word h, two bits for tile j, register p at bits 8 j + 2 p and 16 more
//   scales   Q8_0, Q4_0, Q5_0  64  at 8 g: f16 [h][r], of output g + 8 r
//            Q4_1, Q5_1       128  at 16 g: f16 [h][r] of {scale, what is added}
//            Q4_K, Q5_K        64  at 8 g: bytes [h][r] of {scale, minimum}
//            Q6_K              64  at 8 g: signed bytes [h][s][r], s = t / 2: the 16 inputs
// Formats whose blocks have 256 numbers have what belongs to these behind each four groups:
//   head     Q4_K, Q5_K  64  at 8 g: f16 [r] of {scale of the scales, scale of the minimums}
//            Q6_K        32  at 4 g: f16 [r], the scale of the scales
// 4-bit numbers and wider ones without a sign are stored as GGUF has them, from 0 up.
#pragma once
#include "gpu.cuh"

enum WeightFormat { F32, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K };

// Inputs of a group, and groups that a head belongs to.
#define GROUP_INPUTS 64
#define HEAD_GROUPS 4

__device__ constexpr int number_bytes(int format) {
  return format == F32 ? 4096 : format == BF16 ? 2048 : format == Q8_0 ? 1024 : 512;
}
__device__ constexpr int high_bytes(int format) {
  return format == Q5_0 || format == Q5_1 || format == Q5_K ? 128 : format == Q6_K ? 256 : 0;
}
__device__ constexpr int scale_bytes(int format) {
  return format == F32 || format == BF16 ? 0 : format == Q4_1 || format == Q5_1 ? 128 : 64;
}
__device__ constexpr int head_bytes(int format) {
  return format == Q4_K || format == Q5_K ? 64 : format == Q6_K ? 32 : 0;
}
// Bytes of a group without its head.
__device__ constexpr int group_bytes(int format) {
  return number_bytes(format) + high_bytes(format) + scale_bytes(format);
}
// From the beginning of a row of groups to a group.
__device__ constexpr int group_at(int format, int group) {
  return group * group_bytes(format) + group / HEAD_GROUPS * head_bytes(format);
}
// From the beginning of a row of groups to a group's head.
__device__ constexpr int head_at(int format, int group) {
  const int heads = group / HEAD_GROUPS;
  return (heads + 1) * HEAD_GROUPS * group_bytes(format) + heads * head_bytes(format);
}
// Bytes of a row of groups; where there are heads, the inputs are a multiple of 256.
__device__ constexpr long long row_bytes(int format, int groups) {
  return (long long)groups * group_bytes(format) + groups / HEAD_GROUPS * head_bytes(format);
}

// What has to be taken away from the numbers of `fragment`.
__device__ constexpr float fragment_bias(int format) {
  return format == Q4_0 ? 136.f : format == Q5_0 ? 144.f
       : format == Q4_1 || format == Q5_1 || format == Q4_K || format == Q5_K ? 128.f : 0.f;
}
// Whether a format's numbers have a minimum besides their scale.
__device__ constexpr bool has_minimum(int format) {
  return format == Q4_1 || format == Q5_1 || format == Q4_K || format == Q5_K;
}

// Scales of a lane's two outputs: weight = scale * (fragment - fragment_bias) - minimum.
struct Scales { float scale[2], minimum[2]; };

__device__ inline float low_half(uint32_t pair) {
  __half h; *reinterpret_cast<uint16_t*>(&h) = uint16_t(pair); return __half2float(h);
}
__device__ inline float high_half(uint32_t pair) { return low_half(pair >> 16); }

// The scales of a half of a group; `part` is the one of its two 16 inputs (only Q6_K's differ). Not for F32,
// BF16.
template <int F>
__device__ inline Scales scales(const unsigned char* group, const unsigned char* head, int lane, int half,
                                int part) {
  const int g = lane / 4;
  const unsigned char* at = group + number_bytes(F) + high_bytes(F);
  Scales s = {{0.f, 0.f}, {0.f, 0.f}};
  // Words of both halves are read at once: whoever wants both reads once.
  if (F == Q4_1 || F == Q5_1) {
    const uint4 all = reinterpret_cast<const uint4*>(at)[g];
    const uint32_t first = half ? all.z : all.x, second = half ? all.w : all.y;
    s.scale[0] = low_half(first), s.minimum[0] = -high_half(first);
    s.scale[1] = low_half(second), s.minimum[1] = -high_half(second);
    return s;
  }
  const uint2 all = reinterpret_cast<const uint2*>(at)[g];
  const uint32_t word = half ? all.y : all.x;
  if (F == Q4_K || F == Q5_K) {
    const uint2 over = reinterpret_cast<const uint2*>(head)[g];
    s.scale[0] = low_half(over.x) * float(word & 0xff);
    s.minimum[0] = high_half(over.x) * float(word >> 8 & 0xff);
    s.scale[1] = low_half(over.y) * float(word >> 16 & 0xff);
    s.minimum[1] = high_half(over.y) * float(word >> 24);
  } else if (F == Q6_K) {
    const uint32_t bytes = word >> (16 * part), over = reinterpret_cast<const uint32_t*>(head)[g];
    s.scale[0] = low_half(over) * float((signed char)(bytes & 0xff));
    s.scale[1] = high_half(over) * float((signed char)(bytes >> 8 & 0xff));
  } else {
    s.scale[0] = low_half(word);
    s.scale[1] = high_half(word);
  }
  return s;
}

// A's registers of both tiles of a half: the weights where the format is BF16, else whole numbers, exact in
// bf16. Not for F32. Numbers of 4 and 5 bits are 128 too large (128 + q is q behind bf16's seven bits of
// fraction).
template <int F> __device__ inline void fragment(const unsigned char* group, int lane, int half,
                                                 uint32_t (&a)[2][4]) {
  if (F == BF16) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const uint4 v = reinterpret_cast<const uint4*>(group)[32 * (2 * half + j) + lane];
      a[j][0] = v.x, a[j][1] = v.y, a[j][2] = v.z, a[j][3] = v.w;
    }
  } else if (F == Q8_0) {
    const uint4 v = reinterpret_cast<const uint4*>(group)[32 * half + lane];
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int p = 0; p < 8; p++) {
      const uint32_t bytes = words[p / 2] >> (8 * (p % 2));
      // 128 and the lower seven bits, less 128 and, where the eighth bit is set, 128 more: its two's
      // complement.
      a[p / 4][p % 4] =
        sub_bf16x2(and_or(bytes, 0x007f007fu, 0x43004300u), and_or(bytes, 0x00800080u, 0x43004300u));
    }
  } else {
    const uint4 all = reinterpret_cast<const uint4*>(group)[lane];
    const uint2 low = half ? uint2{all.z, all.w} : uint2{all.x, all.y};
    const unsigned char* above = group + number_bytes(F);
    uint32_t high = 0;
    if (high_bytes(F) == 128) high = reinterpret_cast<const uint32_t*>(above)[lane] >> (8 * half);
    if (high_bytes(F) == 256) {
      const uint2 both = reinterpret_cast<const uint2*>(above)[lane];
      high = half ? both.y : both.x;
    }
#pragma unroll
    for (int p = 0; p < 8; p++) {
      uint32_t q = and_or((p < 4 ? low.x : low.y) >> (4 * (p % 4)), 0x000f000fu, 0x43004300u);
      if (high_bytes(F) == 128) q = and_or(p < 4 ? high << (4 - p % 4) : high >> (p - 4), 0x00100010u, q);
      if (high_bytes(F) == 256) q = and_or(p < 2 ? high << (4 - 2 * p) : high >> (2 * p - 4), 0x00300030u, q);
      a[p / 4][p % 4] = F == Q6_K ? sub_bf16x2(q, 0x43204320u) : q;  // 128 + 32
    }
  }
}

// The weights of a half that a lane holds, exactly: outputs g and g + 8, inputs i.
template <int F>
__device__ inline void numbers(const unsigned char* group, const unsigned char* head, int lane, int half,
                               float (&w)[2][8]) {
  if (F == F32) {
#pragma unroll
    for (int p = 0; p < 4; p++) {
      const float4 v = reinterpret_cast<const float4*>(group)[32 * (4 * half + p) + lane];
      float* to = &w[p % 2][4 * (p / 2)];
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
    return;
  }
  uint32_t a[2][4];
  fragment<F>(group, lane, half, a);
  const Scales s = scales<F>(group, head, lane, half, lane % 4 / 2);
#pragma unroll
  for (int p = 0; p < 8; p++) {
    const int r = p % 2, i = 4 * (p / 4) + p % 4 / 2 * 2;
    const uint32_t pair = a[p / 4][p % 4];
    const float low = __uint_as_float(pair << 16), high = __uint_as_float(pair & 0xffff0000u);
    if (F == BF16) {
      w[r][i] = low, w[r][i + 1] = high;
    } else {
      w[r][i] = fmaf(s.scale[r], low - fragment_bias(F), -s.minimum[r]);
      w[r][i + 1] = fmaf(s.scale[r], high - fragment_bias(F), -s.minimum[r]);
    }
  }
}
