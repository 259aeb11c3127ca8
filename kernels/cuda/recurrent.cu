// Griffin's recurrent block for few rows: convolution, gates, RG-LRU and gelu(y) * h in one launch.
#include "recurrent.cuh"

namespace {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
// The most rows of a launch: a thread for each of them and each output of a tile.
constexpr int FEW = THREADS / TILE;
// Tiles that a warp takes along the inputs, each for both gates.
constexpr int STRIDES = SIDE / TILE / WARPS;

// A lane's eight weights of a tile, as they lie in memory: f32 in `low` and `high`, bf16 in `low`.
struct Packed {
  uint4 low, high;
};

__device__ inline Packed packed(const uint4* gate, size_t tile, int lane, bool exact) {
  if (!exact) return {load_once(gate + tile * 32 + lane), {0, 0, 0, 0}};
  const uint4* at = gate + tile * 64 + lane;
  return {load_once(at), load_once(at + 32)};
}

__device__ inline float low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ inline float whole(uint32_t word) { return __uint_as_float(word); }

// The weights of two outputs, g and g + 8 of the tile, for the inputs 2t, 2t + 1, 2t + 8, 2t + 9.
struct Weights {
  float4 upper, lower;
};

__device__ inline Weights weights(const Packed& p, bool exact) {
  if (exact) {
    return {{whole(p.low.x), whole(p.low.y), whole(p.high.x), whole(p.high.y)},
            {whole(p.low.z), whole(p.low.w), whole(p.high.z), whole(p.high.w)}};
  }
  return {{low_half(p.low.x), high_half(p.low.x), low_half(p.low.z), high_half(p.low.z)},
          {low_half(p.low.y), high_half(p.low.y), low_half(p.low.w), high_half(p.low.w)}};
}

__device__ inline float dot(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// Where an input stands among the block's: those that a lane meets in a tile side by side.
__device__ inline int place_of(int input) {
  const int in_tile = input % TILE;
  return input - in_tile + in_tile % 8 / 2 * 4 + in_tile / 8 * 2 + in_tile % 2;
}

// Convolves the rows of a channel, the first of them row `first` of the pass; zeros where there is no channel.
__device__ inline void convolve(const Convolution& convolution, const Branches& branches, int first, int n,
                                int channel, bool there, float (*out)[SIDE], int place) {
  float inputs[TAPS - 1 + FEW];
#pragma unroll
  for (int i = 0; i < TAPS - 1 + FEW; i++) {
    const int row = i - (TAPS - 1);
    inputs[i] = there && row < n ? branches.x(first + row, channel) : 0.f;
  }
#pragma unroll
  for (int row = 0; row < FEW; row++) {
    if (row < n) out[row][place] = there ? convolution.of(inputs + row) : 0.f;
  }
}

// Sums over the four lanes of an output, of two outputs of both gates; lane t gets output g + 8 (t % 2) of gate t / 2.
__device__ inline float quad_sum(const float (&sums)[4], int t) {
  const bool second = t & 2, lower = t & 1;
  const float a = (second ? sums[2] : sums[0]) + __shfl_xor_sync(0xffffffffu, second ? sums[0] : sums[2], 2);
  const float b = (second ? sums[3] : sums[1]) + __shfl_xor_sync(0xffffffffu, second ? sums[1] : sums[3], 2);
  return (lower ? b : a) + __shfl_xor_sync(0xffffffffu, lower ? a : b, 1);
}

// A warp's part of both gates' products with all rows: of the tiles `warp`, `warp + WARPS`, ... along the inputs.
__device__ inline void gate_parts(const Packed (&gates)[STRIDES][2], bool exact, int tiles, int n,
                                  const float (*convolved)[SIDE], float (*out)[2 * TILE]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float sums[FEW][4] = {};
#pragma unroll
  for (int stride = 0; stride < STRIDES; stride++) {
    const int tile = warp + stride * WARPS;
    if (tile >= tiles) break;
    const Weights input = weights(gates[stride][0], exact), recurrence = weights(gates[stride][1], exact);
#pragma unroll
    for (int row = 0; row < FEW; row++) {
      if (row >= n) break;
      const float4 x = *reinterpret_cast<const float4*>(&convolved[row][tile * TILE + 4 * t]);
      sums[row][0] = dot(input.upper, x, sums[row][0]);
      sums[row][1] = dot(input.lower, x, sums[row][1]);
      sums[row][2] = dot(recurrence.upper, x, sums[row][2]);
      sums[row][3] = dot(recurrence.lower, x, sums[row][3]);
    }
  }
#pragma unroll
  for (int row = 0; row < FEW; row++) {
    if (row >= n) break;
    out[row][t / 2 * TILE + g + 8 * (t % 2)] = quad_sum(sums[row], t);
  }
}

}  // namespace

// Rows `first` to `first + n` of a pass, n <= 16. A block takes 16 channels, and convolves all channels of the
// diagonal's block that its gates read. `carry` [width], where it is not null, holds the recurrence between
// launches over parts of a pass. A row's bits do not depend on the rows beside it.
KERNEL_OF(256, 2) recurrent_few(const float* xy, int first, int n, int width, int side, int taps, int exact,
                                const int* head, const uint64_t* addresses, const int* kept, int offset,
                                const float* convolution, const float* convolution_bias,
                                const float* input_bias, const float* recurrence_bias, const float* decay,
                                const uint4* input_gate, const uint4* recurrence_gate, float* carry,
                                void* out) {
  SHARED(float, convolved, [FEW][SIDE]);
  SHARED(float, parts, [WARPS][FEW][2 * TILE]);
  SHARED(Step, steps, [FEW][TILE]);
  SHARED(float, recurrence, [FEW][TILE]);
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int tiles = (side + TILE - 1) / TILE;
  const int first_of_block = blockIdx.x / tiles * side, tile = blockIdx.x % tiles;

  // Weights do not wait for the launch before.
  Packed gates[STRIDES][2] = {};
#pragma unroll
  for (int stride = 0; stride < STRIDES; stride++) {
    const int along = warp + stride * WARPS;
    if (along >= tiles) break;
    gates[stride][0] = packed(input_gate, size_t(blockIdx.x) * tiles + along, lane, exact);
    gates[stride][1] = packed(recurrence_gate, size_t(blockIdx.x) * tiles + along, lane, exact);
  }
  const Channels channels = {convolution, convolution_bias, input_bias, recurrence_bias, decay};
  const bool convolves = thread < side;
  const int to_convolve = first_of_block + (convolves ? thread : 0);
  const Convolution taps_of_channel(channels, to_convolve, width, taps);
  // The row and the channel that the thread has of the rest.
  const int row = thread / TILE, in_block = tile * TILE + thread % TILE;
  const bool there = in_block < side;
  const int channel = first_of_block + (there ? in_block : 0);
  const float of_input = input_bias[channel], of_recurrence = recurrence_bias[channel];
  const float strongest = decay[channel];

  wait_for_launch_before();
  let_next_launch_begin();
  const int start = head[0];
  const States states = {addresses, kept, offset};
  const Branches branches = {xy, start > 0 ? states.from() : nullptr, width, taps};
  const float y = row < n ? branches.y(first + row, channel) : 0.f;
  float h = thread < TILE ? (first > 0 ? carry[channel] : branches.recurrence(channel)) : 0.f;
  if (thread < tiles * TILE) {
    convolve(taps_of_channel, branches, first, n, to_convolve, convolves, convolved, place_of(thread));
  }
  __syncthreads();
  gate_parts(gates, exact, tiles, n, convolved, parts[warp]);
  __syncthreads();
  if (row < n) {
    float input = of_input, forgetting = of_recurrence;
    for (int part = 0; part < WARPS; part++) {
      input += parts[part][row][thread % TILE];
      forgetting += parts[part][row][TILE + thread % TILE];
    }
    const float x = convolved[row][place_of(in_block)];
    const bool begins = start + first + row == 0;
    steps[row][thread % TILE] = rg_lru_step(x, input, forgetting, strongest, begins);
  }
  __syncthreads();
  if (thread < TILE) {
    for (int i = 0; i < n; i++) {
      h = fmaf(steps[i][thread].a, h, steps[i][thread].b);
      recurrence[i][thread] = h;
    }
    if (carry && there) carry[channel] = h;
  }
  __syncthreads();
  if (!there) return;
  if (row < n) {
    const size_t at = size_t(first + row) * width + channel;
    store_number(out, at, gelu_tanh(y) * recurrence[row][thread % TILE], exact);
  }
  for (int i = row; i < states.count(); i += FEW) {
    const int behind = states.row(i) - first;
    if (behind >= 0 && behind < n) {
      leave(states, i, branches, recurrence[behind][thread % TILE], channel);
    }
  }
}
