// Griffin's recurrent block for few rows: convolution, gates, RG-LRU and gelu(y) * h in one launch.
#include "recurrent.cuh"

namespace {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
// The most rows of a launch: a thread for each of them and each output of a tile.
constexpr int FEW = THREADS / TILE;
// Rows whose sums a warp has at a time.
constexpr int AT_ONCE = FEW / 2;
// Tiles that a warp takes along the inputs, each for both gates.
constexpr int STRIDES = SIDE / TILE / WARPS;

__device__ inline float low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// A lane's weights of a tile: of two outputs, g and g + 8, for the inputs 2t, 2t + 1, 2t + 8, 2t + 9.
struct Weights {
  float4 upper, lower;
};

__device__ inline Weights unpacked(uint4 bf16s) {
  return {{low_half(bf16s.x), high_half(bf16s.x), low_half(bf16s.z), high_half(bf16s.z)},
          {low_half(bf16s.y), high_half(bf16s.y), low_half(bf16s.w), high_half(bf16s.w)}};
}

// The same of a matrix in f32.
__device__ inline Weights whole(const uint4* gate, size_t tile, int lane) {
  const float4* at = reinterpret_cast<const float4*>(gate) + tile * 64 + lane;
  const float4 first = at[0], second = at[32];
  return {{first.x, first.y, second.x, second.y}, {first.z, first.w, second.z, second.w}};
}

// Both gates of a layer; of one in bf16, a warp's weights are asked for before they are needed.
struct Gates {
  const uint4 *input, *recurrence;
  bool exact;
  int tiles;
  uint4 ahead[STRIDES][2];

  __device__ size_t tile(int stride) const {
    return size_t(blockIdx.x) * tiles + threadIdx.x / 32 + stride * WARPS;
  }
  // Whether the warp has so many tiles.
  __device__ bool has(int stride) const { return int(threadIdx.x / 32 + stride * WARPS) < tiles; }

  __device__ void ask() {
#pragma unroll
    for (int stride = 0; stride < STRIDES; stride++) {
      if (exact || !has(stride)) break;
      ahead[stride][0] = load_once(input + tile(stride) * 32 + threadIdx.x % 32);
      ahead[stride][1] = load_once(recurrence + tile(stride) * 32 + threadIdx.x % 32);
    }
  }
  __device__ Weights of(int stride, int gate) const {
    if (exact) return whole(gate ? recurrence : input, tile(stride), threadIdx.x % 32);
    return unpacked(ahead[stride][gate]);
  }
};

__device__ inline float dot(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// Where an input stands among the block's: those that a lane meets in a tile side by side.
__device__ inline int place_of(int input) {
  const int in_tile = input % TILE;
  return input - in_tile + in_tile % 8 / 2 * 4 + in_tile / 8 * 2 + in_tile % 2;
}

// Sums over the four lanes of an output, of two outputs of both gates; lane t gets output g + 8 (t % 2) of
// gate t / 2.
__device__ inline float quad_sum(const float (&sums)[4], int t) {
  const bool second = t & 2, lower = t & 1;
  const float a = (second ? sums[2] : sums[0]) + __shfl_xor_sync(0xffffffffu, second ? sums[0] : sums[2], 2);
  const float b = (second ? sums[3] : sums[1]) + __shfl_xor_sync(0xffffffffu, second ? sums[1] : sums[3], 2);
  return (lower ? b : a) + __shfl_xor_sync(0xffffffffu, lower ? a : b, 1);
}

// A warp's part of both gates' products with up to AT_ONCE rows: of the tiles `warp`, `warp + WARPS`, ...
// along the inputs.
__device__ inline void gate_parts(const Gates& gates, int n, const float (*convolved)[SIDE],
                                  float (*out)[2 * TILE]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float sums[AT_ONCE][4] = {};
#pragma unroll
  for (int stride = 0; stride < STRIDES; stride++) {
    if (!gates.has(stride)) break;
    const int tile = warp + stride * WARPS;
    const Weights input = gates.of(stride, 0), recurrence = gates.of(stride, 1);
#pragma unroll
    for (int row = 0; row < AT_ONCE; row++) {
      if (row >= n) break;
      const float4 x = *reinterpret_cast<const float4*>(&convolved[row][tile * TILE + 4 * t]);
      sums[row][0] = dot(input.upper, x, sums[row][0]);
      sums[row][1] = dot(input.lower, x, sums[row][1]);
      sums[row][2] = dot(recurrence.upper, x, sums[row][2]);
      sums[row][3] = dot(recurrence.lower, x, sums[row][3]);
    }
  }
#pragma unroll
  for (int row = 0; row < AT_ONCE; row++) {
    if (row >= n) break;
    out[row][t / 2 * TILE + g + 8 * (t % 2)] = quad_sum(sums[row], t);
  }
}

// What a thread has of the block's result: a channel of one of the rows.
struct Item {
  int row, in_tile, in_block, channel;
  bool there;  // whether there is such a channel
  float input_bias, recurrence_bias, decay;

  __device__ Item(const Channels& channels, int first_of_block, int tile, int side)
      : row(threadIdx.x / TILE), in_tile(threadIdx.x % TILE), in_block(tile * TILE + in_tile) {
    there = in_block < side;
    channel = first_of_block + (there ? in_block : 0);
    input_bias = channels.input_bias[channel];
    recurrence_bias = channels.recurrence_bias[channel];
    decay = channels.decay[channel];
  }

  // Its step, by the sums of both gates' parts.
  __device__ Step step(const float (*parts)[FEW][2 * TILE], const float (*convolved)[SIDE],
                       bool begins) const {
    float input = input_bias, recurrence = recurrence_bias;
#pragma unroll
    for (int part = 0; part < WARPS; part++) {
      input += parts[part][row][in_tile];
      recurrence += parts[part][row][TILE + in_tile];
    }
    return rg_lru_step(convolved[row][place_of(in_block)], input, recurrence, decay, begins);
  }
};

}  // namespace

// Rows `first` to `first + n` of a pass, n <= FEW. A block takes 16 channels, and convolves all channels of
// the diagonal's block that its gates read. `carry` [width], where it is not null, holds the recurrence
// between launches over parts of a pass. A row's bits do not depend on the rows beside it.
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
  const int thread = threadIdx.x, warp = thread / 32;
  const int tiles = (side + TILE - 1) / TILE;
  const int first_of_block = blockIdx.x / tiles * side, tile = blockIdx.x % tiles;

  // Weights do not wait for the launch before.
  Gates gates = {input_gate, recurrence_gate, exact != 0, tiles, {}};
  gates.ask();
  const Channels channels = {convolution, convolution_bias, input_bias, recurrence_bias, decay};
  const int to_convolve = first_of_block + min(thread, side - 1);
  const Convolution convolution_of(channels, to_convolve, width, taps);
  const Item item(channels, first_of_block, tile, side);

  let_next_launch_begin();
  wait_for_launch_before();
  const int start = head[0];
  const States states = {addresses, kept, offset};
  const Branches branches = {xy, states.from(start), width, taps};
  const float y = item.row < n ? branches.y(first + item.row, item.channel) : 0.f;
  // The table has at least FEW entries, so that none of these has to wait for another.
  const int leaves = states.count(), leaves_behind = states.row(item.row);
  float* const to_leave = states.left(item.row);
  const int place = place_of(thread);
  if (thread < side) {
    convolve<AT_ONCE>(convolution_of, branches, first, first + n, to_convolve,
                      [&](int row, float x) { convolved[row][place] = x; });
  } else if (thread < tiles * TILE) {
    for (int row = 0; row < n; row++) convolved[row][place] = 0.f;
  }
  float h = 0.f;
  if (thread < TILE && item.there) h = first > 0 ? carry[item.channel] : branches.recurrence(item.channel);
  __syncthreads();
#pragma unroll 1
  for (int row = 0; row < n; row += AT_ONCE) {
    gate_parts(gates, n - row, convolved + row, parts[warp] + row);
  }
  __syncthreads();
  if (item.row < n) {
    steps[item.row][item.in_tile] = item.step(parts, convolved, start + first + item.row == 0);
  }
  __syncthreads();
  if (thread < TILE) {
    for (int row = 0; row < n; row++) {
      h = fmaf(steps[row][thread].a, h, steps[row][thread].b);
      recurrence[row][thread] = h;
    }
    if (carry && item.there) carry[item.channel] = h;
  }
  __syncthreads();
  if (!item.there) return;
  if (item.row < n) {
    const size_t at = size_t(first + item.row) * width + item.channel;
    store_number(out, at, gelu_tanh(y) * recurrence[item.row][item.in_tile], exact);
  }
  for (int i = item.row; i < leaves; i += FEW) {
    const int row = i < FEW ? leaves_behind : states.row(i);
    if (row < first || row >= first + n) continue;
    float* to = i < FEW ? to_leave : states.left(i);
    leave(to, row, branches, recurrence[row - first][item.in_tile], item.channel);
  }
}
