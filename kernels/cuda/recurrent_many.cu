// Griffin's recurrent block for many rows, in chunks: gates on tensor cores and every step's a and b at once; then
// each chunk's scan from what the chunks before it carry into it.
#include "recurrent.cuh"

namespace {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
// Rows of a chunk.
constexpr int CHUNK = 64;
// Channels of a block: a tile a warp.
constexpr int GROUP = WARPS * TILE;
// Rows that are convolved at a time.
constexpr int BATCH = 16;
// Numbers from a row to the next in shared memory, so that rows fall into different banks.
constexpr int INPUT_STRIDE = SIDE + 8;
constexpr int STEP_STRIDE = GROUP + 4;
// Rows whose loads are in flight at a time in a scan.
constexpr int AHEAD = 8;
constexpr int SCAN_THREADS = 128;

// A block's shared memory. The steps' factors take the place of the products' inputs once these are used up.
union Front {
  bf16 inputs[CHUNK][INPUT_STRIDE];
  float a[CHUNK][STEP_STRIDE];
};
struct Shared {
  Front front;
  float b[CHUNK][STEP_STRIDE];  // the convolved inputs of the group's own channels, then the steps' terms
};

// Convolves a chunk of one channel, in bf16 for the gates and, for the group's own channels, as it is; zeros behind
// the last row and where there is no channel.
__device__ inline void convolve(const Convolution& convolution, const Branches& branches, int first, int n,
                                int channel, bool there, int input, int own, Shared& shared) {
  float inputs[TAPS - 1 + BATCH];
#pragma unroll
  for (int i = 0; i < TAPS - 1; i++) inputs[i] = there ? branches.x(first + i - (TAPS - 1), channel) : 0.f;
  for (int row = 0; row < CHUNK; row += BATCH) {
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const bool inside = there && first + row + i < n;
      inputs[TAPS - 1 + i] = inside ? branches.x(first + row + i, channel) : 0.f;
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const float convolved = there && first + row + i < n ? convolution.of(inputs + i) : 0.f;
      shared.front.inputs[row + i][input] = __float2bfloat16(convolved);
      if (own >= 0 && own < GROUP) shared.b[row + i][own] = convolved;
    }
#pragma unroll
    for (int i = 0; i < TAPS - 1; i++) inputs[i] = inputs[BATCH + i];
  }
}

__device__ inline void unpack(uint32_t (&a)[4], uint4 packed) {
  a[0] = packed.x, a[1] = packed.y, a[2] = packed.z, a[3] = packed.w;
}

// Both gates' products of a tile of outputs with the chunk's first `pairs` times 16 rows.
__device__ inline void gate_products(const uint4* input_gate, const uint4* recurrence_gate, int tiles, int pairs,
                                     const Shared& shared, float (&input)[CHUNK / 8][4],
                                     float (&recurrence)[CHUNK / 8][4]) {
  const int lane = threadIdx.x % 32;
  const int row = lane % 8 + lane / 16 * 8, column = lane / 8 % 2 * 8;
  uint4 next_input = load_once(input_gate + lane), next_recurrence = load_once(recurrence_gate + lane);
  for (int tile = 0; tile < tiles; tile++) {
    uint32_t a_input[4], a_recurrence[4];
    unpack(a_input, next_input);
    unpack(a_recurrence, next_recurrence);
    const int next = tile + 1 < tiles ? tile + 1 : tile;
    next_input = load_once(input_gate + next * 32 + lane);
    next_recurrence = load_once(recurrence_gate + next * 32 + lane);
#pragma unroll
    for (int pair = 0; pair < CHUNK / 16; pair++) {
      if (pair >= pairs) break;
      uint32_t rows[4];
      ldmatrix_x4(rows, &shared.front.inputs[pair * 16 + row][tile * TILE + column]);
      const uint32_t upper[2] = {rows[0], rows[1]}, lower[2] = {rows[2], rows[3]};
      mma_16816(input[2 * pair], a_input, upper);
      mma_16816(input[2 * pair + 1], a_input, lower);
      mma_16816(recurrence[2 * pair], a_recurrence, upper);
      mma_16816(recurrence[2 * pair + 1], a_recurrence, lower);
    }
  }
}

}  // namespace

// The steps h = a h + b of a chunk (blockIdx.y) of up to 128 channels of a block of the gates' diagonal: `a` and `b`
// [n, width]; and the chunk as one step, `chunk_a` and `chunk_b` [chunks, width].
KERNEL_OF(256, 2) recurrent_gates(const float* xy, int n, int width, int side, int taps, const int* head,
                                  const uint64_t* addresses, const float* convolution,
                                  const float* convolution_bias, const float* input_bias,
                                  const float* recurrence_bias, const float* decay, const uint4* input_gate,
                                  const uint4* recurrence_gate, int offset, float* a, float* b, float* chunk_a,
                                  float* chunk_b) {
  SHARED_DYN(Shared, shared);
  SHARED(Step, halves, [2][GROUP]);
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  const int tiles = (side + TILE - 1) / TILE, groups = (tiles + WARPS - 1) / WARPS;
  const int block = blockIdx.x / groups, group = blockIdx.x % groups;
  const int first_of_block = block * side, first = blockIdx.y * CHUNK;
  const int rows = min(CHUNK, n - first);
  const Channels channels = {convolution, convolution_bias, input_bias, recurrence_bias, decay};
  const bool convolves = thread < side;
  const int to_convolve = first_of_block + (convolves ? thread : 0);
  const Convolution taps_of_channel(channels, to_convolve, width, taps);

  wait_for_launch_before();
  let_next_launch_begin();
  const int start = head[0];
  const States states = {addresses, nullptr, offset};
  const Branches branches = {xy, start > 0 ? states.from() : nullptr, width, taps};
  if (thread < tiles * TILE) {
    convolve(taps_of_channel, branches, first, n, to_convolve, convolves, thread, thread - group * GROUP, *shared);
  }
  __syncthreads();
  float input[CHUNK / 8][4] = {}, recurrence[CHUNK / 8][4] = {};
  const int tile = group * WARPS + warp;
  if (tile < tiles) {
    const size_t at = (size_t(block) * tiles + tile) * tiles * 32;
    gate_products(input_gate + at, recurrence_gate + at, tiles, (rows + 15) / 16, *shared, input, recurrence);
  }
  __syncthreads();
#pragma unroll
  for (int lower = 0; lower < 2; lower++) {
    const int own = warp * TILE + g + 8 * lower, in_block = group * GROUP + own;
    const int channel = first_of_block + in_block;
    if (in_block >= side) break;
    const float of_input = input_bias[channel], of_recurrence = recurrence_bias[channel];
    const float strongest = decay[channel];
#pragma unroll
    for (int i = 0; i < CHUNK / 4; i++) {
      const int row = i / 2 * 8 + 2 * t + i % 2, e = 2 * lower + i % 2;
      if (row >= rows) continue;
      const Step step = rg_lru_step(shared->b[row][own], input[i / 2][e] + of_input,
                                    recurrence[i / 2][e] + of_recurrence, strongest, start + first + row == 0);
      shared->front.a[row][own] = step.a;
      shared->b[row][own] = step.b;
    }
  }
  __syncthreads();
  const int own = thread % GROUP, half = thread / GROUP, in_block = group * GROUP + own;
  const bool there = in_block < side;
  const int channel = first_of_block + in_block;
  Step all = {1.f, 0.f};
  if (there) {
    for (int row = half * CHUNK / 2; row < min(rows, (half + 1) * CHUNK / 2); row++) {
      const Step step = {shared->front.a[row][own], shared->b[row][own]};
      const size_t at = size_t(first + row) * width + channel;
      a[at] = step.a;
      b[at] = step.b;
      all = {step.a * all.a, fmaf(step.a, all.b, step.b)};
    }
  }
  halves[half][own] = all;
  __syncthreads();
  if (there && half == 0) {
    const Step last = halves[1][own];
    const size_t at = size_t(blockIdx.y) * width + channel;
    chunk_a[at] = last.a * all.a;
    chunk_b[at] = fmaf(last.a, all.b, last.b);
  }
}

// The recurrence of a chunk (blockIdx.y), a channel a thread: out = gelu_tanh(y) * h, and the states that the pass
// leaves behind rows of the chunk.
KERNEL_OF(128, 8) recurrent_scan(const float* xy, int n, int width, int taps, const int* head,
                                 const uint64_t* addresses, const int* kept, int offset, const float* a,
                                 const float* b, const float* chunk_a, const float* chunk_b, bf16* out) {
  wait_for_launch_before();
  let_next_launch_begin();
  const int channel = blockIdx.x * SCAN_THREADS + threadIdx.x;
  if (channel >= width) return;
  const States states = {addresses, kept, offset};
  const Branches branches = {xy, head[0] > 0 ? states.from() : nullptr, width, taps};
  const int chunk = blockIdx.y, first = chunk * CHUNK, end = min(first + CHUNK, n);
  float h = branches.recurrence(channel);
#pragma unroll 8
  for (int before = 0; before < chunk; before++) {
    const size_t at = size_t(before) * width + channel;
    h = fmaf(chunk_a[at], h, chunk_b[at]);
  }
  const int leaves = states.count();
  int leaving = 0;
  while (leaving < leaves && states.row(leaving) < first) leaving++;
  int leaves_behind = leaving < leaves ? states.row(leaving) : n;
  for (int row = first; row < end; row += AHEAD) {
    float as[AHEAD], bs[AHEAD], ys[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      const int inside = min(row + i, end - 1);
      as[i] = a[size_t(inside) * width + channel];
      bs[i] = b[size_t(inside) * width + channel];
      ys[i] = branches.y(inside, channel);
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      if (row + i >= end) break;
      h = fmaf(as[i], h, bs[i]);
      out[size_t(row + i) * width + channel] = __float2bfloat16(gelu_tanh(ys[i]) * h);
      if (row + i == leaves_behind) {
        leave(states, leaving++, branches, h, channel);
        leaves_behind = leaving < leaves ? states.row(leaving) : n;
      }
    }
  }
}
