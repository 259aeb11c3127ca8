// Rows of an embedding table.
#include "format.cuh"

template <int F> __device__ inline void embed_row(const unsigned char* rows, int groups, int cols, int index,
                                                  float scale, float* out) {
  const unsigned char* row = rows + index / 16 * row_bytes(F, groups);
  // Eight numbers a thread: what a lane holds of one output and one half of a group.
  for (int col = 8 * threadIdx.x; col < cols; col += 8 * blockDim.x) {
    const int group = col / GROUP_INPUTS, half = col / 32 % 2, lane = index % 8 * 4 + col / 8 % 4;
    float w[2][8];
    numbers<F>(row + group_at(F, group), row + head_at(F, group), lane, half, w);
    float mine[8];
#pragma unroll
    for (int i = 0; i < 8; i++) mine[i] = scale * (index % 16 < 8 ? w[0][i] : w[1][i]);
    float4* to = reinterpret_cast<float4*>(out + col);
    to[0] = float4{mine[0], mine[1], mine[2], mine[3]};
    to[1] = float4{mine[4], mine[5], mine[6], mine[7]};
  }
}

// out[i] = scale * table[ids[i]], a block a token. `cols` is a multiple of 8. No id leads out of the table.
KERNEL_OF(256, 1) embed_rows(const unsigned char* table, int format, int rows, int cols, const unsigned* ids,
                             float scale, float* out) {
  wait_for_launch_before();
  const int index = int(min(ids[blockIdx.x], unsigned(rows - 1)));
  const int groups = (cols + GROUP_INPUTS - 1) / GROUP_INPUTS;
  out += (long long)blockIdx.x * cols;
  switch (format) {
    case F32: embed_row<F32>(table, groups, cols, index, scale, out); break;
    case BF16: embed_row<BF16>(table, groups, cols, index, scale, out); break;
    case Q8_0: embed_row<Q8_0>(table, groups, cols, index, scale, out); break;
    case Q4_0: embed_row<Q4_0>(table, groups, cols, index, scale, out); break;
    case Q4_1: embed_row<Q4_1>(table, groups, cols, index, scale, out); break;
    case Q5_0: embed_row<Q5_0>(table, groups, cols, index, scale, out); break;
    case Q5_1: embed_row<Q5_1>(table, groups, cols, index, scale, out); break;
    case Q4_K: embed_row<Q4_K>(table, groups, cols, index, scale, out); break;
    case Q5_K: embed_row<Q5_K>(table, groups, cols, index, scale, out); break;
    case Q6_K: embed_row<Q6_K>(table, groups, cols, index, scale, out); break;
  }
  let_next_launch_begin();
}
