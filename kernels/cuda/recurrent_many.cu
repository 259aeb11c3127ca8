// Griffin's recurrent block for many rows, in chunks: gates on tensor cores and every step's a and b at once;
// then each chunk's scan from what the chunks before it carry into it.
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

__device__ inline void unpack(uint32_t (&a)[4], uint4 packed) {
  a[0] = packed.x, a[1] = packed.y, a[2] = packed.z, a[3] = packed.w;
}

// Both gates' products of a tile of outputs with the chunk's first `pairs` times 16 rows.
__device__ inline void gate_products(const uint4* input_gate, const uint4* recurrence_gate, int tiles,
                                     int pairs, const Shared& shared, float (&input)[CHUNK / 8][4],
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

// What a thread block has: rows `first` to `first + rows` of channels `begin` to `end` of a diagonal's block.
struct Chunk {
  int first_of_block, begin, end, first, rows;
};

// Two steps as one.
__device__ inline Step after(Step first, Step second) {
  return {second.a * first.a, fmaf(second.a, first.b, second.b)};
}

// Every row's step, by the gates' products as a tensor core leaves them.
__device__ inline void make_steps(const Channels& channels, const Chunk& chunk,
                                  const float (&input)[CHUNK / 8][4], const float (&recurrence)[CHUNK / 8][4],
                                  bool begins, Shared& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int lower = 0; lower < 2; lower++) {
    const int own = warp * TILE + g + 8 * lower;
    if (chunk.begin + own >= chunk.end) break;
    const int channel = chunk.first_of_block + chunk.begin + own;
    const float input_bias = channels.input_bias[channel], decay = channels.decay[channel];
    const float recurrence_bias = channels.recurrence_bias[channel];
#pragma unroll
    for (int i = 0; i < CHUNK / 4; i++) {
      const int row = i / 2 * 8 + 2 * t + i % 2, e = 2 * lower + i % 2;
      if (row >= chunk.rows) continue;
      const float x = shared.b[row][own];
      const Step step = rg_lru_step(x, input[i / 2][e] + input_bias, recurrence[i / 2][e] + recurrence_bias,
                                    decay, begins && row == 0);
      shared.front.a[row][own] = step.a;
      shared.b[row][own] = step.b;
    }
  }
}

// Stores the steps, and gives those of half of the rows of a channel as one step.
__device__ inline Step store_steps(const Chunk& chunk, int width, const Shared& shared, float* a, float* b) {
  const int own = threadIdx.x % GROUP, half = threadIdx.x / GROUP;
  Step all = {1.f, 0.f};
  if (chunk.begin + own >= chunk.end) return all;
  const int channel = chunk.first_of_block + chunk.begin + own;
  const int end = min(chunk.rows, (half + 1) * CHUNK / 2);
#pragma unroll 8
  for (int row = half * CHUNK / 2; row < end; row++) {
    const Step step = {shared.front.a[row][own], shared.b[row][own]};
    const size_t at = size_t(chunk.first + row) * width + channel;
    a[at] = step.a;
    b[at] = step.b;
    all = after(all, step);
  }
  return all;
}

// How many states are left behind rows in front of `row`; of a whole warp.
__device__ inline int left_before(const States& states, int leaves, int row) {
  int mine = 0;
  for (int i = threadIdx.x % 32; i < leaves; i += 32) mine += states.row(i) < row;
  return int(warp_sum(float(mine)));
}

}  // namespace

// The steps h = a h + b of a chunk (blockIdx.y) of up to 128 channels of a diagonal's block: `a` and `b`
// [n, width]; and the chunk as one step, `chunk_a` and `chunk_b` [chunks, width].
KERNEL_OF(256, 2) recurrent_gates(const float* xy, int n, int width, int side, int taps, const int* head,
                                  const uint64_t* addresses, int offset, const float* convolution,
                                  const float* convolution_bias, const float* input_bias,
                                  const float* recurrence_bias, const float* decay, const uint4* input_gate,
                                  const uint4* recurrence_gate, float* a, float* b, float* chunk_a,
                                  float* chunk_b) {
  SHARED_DYN(Shared, shared);
  SHARED(Step, later_half, [GROUP]);
  const int thread = threadIdx.x, warp = thread / 32;
  const int tiles = (side + TILE - 1) / TILE, groups = (tiles + WARPS - 1) / WARPS;
  const int block = blockIdx.x / groups, group = blockIdx.x % groups;
  const int first_of_block = block * side, first = blockIdx.y * CHUNK;
  const int rows = min(CHUNK, n - first);
  const Channels channels = {convolution, convolution_bias, input_bias, recurrence_bias, decay};
  const int to_convolve = first_of_block + min(thread, side - 1);
  const Convolution convolution_of(channels, to_convolve, width, taps);

  wait_for_launch_before();
  let_next_launch_begin();
  const int start = head[0];
  const States states = {addresses, nullptr, offset};
  const Branches branches = {xy, states.from(start), width, taps};
  if (thread < side) {
    const int own = thread - group * GROUP;
    convolve<BATCH>(convolution_of, branches, first, first + rows, to_convolve, [&](int row, float x) {
      shared->front.inputs[row][thread] = __float2bfloat16(x);
      if (own >= 0 && own < GROUP) shared->b[row][own] = x;
    });
  } else if (thread < tiles * TILE) {
    for (int row = 0; row < rows; row++) shared->front.inputs[row][thread] = __float2bfloat16(0.f);
  }
  __syncthreads();
  float input[CHUNK / 8][4] = {}, recurrence[CHUNK / 8][4] = {};
  const int tile = group * WARPS + warp;
  if (tile < tiles) {
    const size_t at = (size_t(block) * tiles + tile) * tiles * 32;
    gate_products(input_gate + at, recurrence_gate + at, tiles, (rows + 15) / 16, *shared, input, recurrence);
  }
  __syncthreads();
  const Chunk chunk = {first_of_block, group * GROUP, min(side, (group + 1) * GROUP), first, rows};
  make_steps(channels, chunk, input, recurrence, start + first == 0, *shared);
  __syncthreads();
  const Step half = store_steps(chunk, width, *shared, a, b);
  const int own = thread % GROUP;
  if (thread >= GROUP) later_half[own] = half;
  __syncthreads();
  if (thread < GROUP && chunk.begin + own < chunk.end) {
    const Step whole = after(half, later_half[own]);
    const size_t at = size_t(blockIdx.y) * width + first_of_block + chunk.begin + own;
    chunk_a[at] = whole.a;
    chunk_b[at] = whole.b;
  }
}

// The recurrence of a chunk (blockIdx.y), a channel a thread: out = gelu_tanh(y) * h, and the states that the
// pass leaves behind rows of the chunk.
KERNEL_OF(128, 6) recurrent_scan(const float* xy, int n, int width, int taps, const int* head,
                                 const uint64_t* addresses, const int* kept, int offset, const float* a,
                                 const float* b, const float* chunk_a, const float* chunk_b, bf16* out) {
  wait_for_launch_before();
  let_next_launch_begin();
  const States states = {addresses, kept, offset};
  const int chunk = blockIdx.y, first = chunk * CHUNK, end = min(first + CHUNK, n);
  const int leaves = states.count();
  int leaving = left_before(states, leaves, first);
  const int channel = blockIdx.x * SCAN_THREADS + threadIdx.x;
  if (channel >= width) return;
  const Branches branches = {xy, states.from(head[0]), width, taps};
  float h = branches.recurrence(channel);
#pragma unroll 8
  for (int before = 0; before < chunk; before++) {
    const size_t at = size_t(before) * width + channel;
    h = fmaf(chunk_a[at], h, chunk_b[at]);
  }
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
        leave(states.left(leaving++), row + i, branches, h, channel);
        leaves_behind = leaving < leaves ? states.row(leaving) : n;
      }
    }
  }
}
