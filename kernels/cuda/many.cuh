// One block's share of a product with many rows: a tile of outputs x rows, summed over the inputs on tensor
// cores.
//
// Weights are the left operand (A) of mma.m16n8k16, rows of x the right one (B), so a lane's sums are those
// of outputs g and g + 8 at rows 2t and 2t + 1 (g = lane / 4, t = lane % 4).
#pragma once
#include "format.cuh"
#include "many_output.cuh"

// Groups of 16 outputs that a block works on; of the inputs, one group's (64) are a stage of its pipeline.
constexpr int OUTPUT_GROUPS = 8;
constexpr int BLOCK_OUTPUTS = 16 * OUTPUT_GROUPS;

// How a block shares its tile among warps: DOWN x ACROSS warps, each with M groups of 16 outputs and N of 8
// rows.
template <int DOWN, int ACROSS, int M_, int N_>
struct Shape {
  static constexpr int M = M_, N = N_;
  static constexpr int WARPS = DOWN * ACROSS;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int ROWS = 8 * N * ACROSS;
  // Halves of a group that the loop holds: both save instructions, where there are registers for them.
  static constexpr int HALVES = M == 2 ? 2 : 1;
  static_assert(DOWN * M == OUTPUT_GROUPS && (M == 4 || M == 2), "a block has 128 outputs");
  static __device__ int down() { return threadIdx.x / 32 % DOWN; }
  static __device__ int across() { return threadIdx.x / 32 / DOWN; }
};

// Bytes of a group of weights in a stage: with its head, if the format has one.
__device__ constexpr int staged_bytes(int format) { return group_bytes(format) + head_bytes(format); }

// What a block multiplies with what.
struct Task {
  const unsigned char* weights;  // the first of its rows of groups
  long long row_bytes;           // of a row of groups
  long long between;             // from a gate's weights to those of what it gates, which take turns; else 0
  int groups;                    // rows of groups that are there, at most OUTPUT_GROUPS
  const bf16* x;                 // the first of its rows
  int stride;                    // numbers from row to row
  int rows;                      // rows that are there; more than Shape::ROWS are others'
  int cols;                      // inputs
  int first, end;                // groups of inputs
  int stages;                    // of the pipeline: 2 to 4
};

// Where the 16 bytes `piece` of a row of x lie in a stage: a lane reads one piece of row lane / 4, and the
// pieces of each eight lanes have to lie in different banks.
__device__ inline int place_of(int row, int piece) { return row * 128 + (piece ^ row % 2 * 4) * 16; }

// What a thread brings to each stage: 16 bytes of every 512 of the rows of groups that its warp brings, and a
// piece of every THREADS / 8-th row of x.
template <class S, int F>
struct Copies {
  static constexpr int BYTES = staged_bytes(F), ROUNDS = (BYTES + 511) / 512;
  static constexpr int OUTPUTS = OUTPUT_GROUPS / S::WARPS;  // rows of groups of a warp
  static constexpr int X = OUTPUT_GROUPS * BYTES;  // where a stage's rows of x begin
  static constexpr int STAGE = X + S::ROWS * 128;
  static constexpr int APART = S::THREADS / 8;  // rows from one piece to the next
  const unsigned char* weights[OUTPUTS];  // of the group that is to be brought next
  const unsigned char* x;
  int weights_group, x_group;  // that group
  int jump;                    // bytes from one row of x to the next of this thread
  int rows, cols;              // from the first one on
  int to_weights, to_x;

  __device__ Copies(const Task& task) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = threadIdx.x / 8, piece = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++) {
      // What is not there is read again where it is, and not written in the end.
      const int output = min(warp + i * S::WARPS, task.groups - 1);
      const long long at = task.between ? output / 2 * task.row_bytes + output % 2 * task.between
                                        : output * task.row_bytes;
      weights[i] = opaque(task.weights + at + group_at(F, task.first) + lane * 16);
    }
    x = opaque(reinterpret_cast<const unsigned char*>(task.x + size_t(row) * task.stride + piece * 8) +
               task.first * 128);
    weights_group = x_group = task.first;
    jump = opaque(task.stride * 2 * APART), rows = task.rows - row, cols = task.cols - piece * 8;
    to_weights = opaque(warp * BYTES + lane * 16), to_x = opaque(X + place_of(row, piece));
  }

  // Half of the next group's weights.
  __device__ void copy_weights(unsigned char* stage, int half) const {
    // The head of four groups comes with each of them.
    const int head = (HEAD_GROUPS - 1 - weights_group % HEAD_GROUPS) * group_bytes(F);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = half; i < OUTPUTS * ROUNDS; i += 2) {
      const int at = i % ROUNDS * 512;
      const int behind = at + 16 * lane - group_bytes(F);
      if (at + 512 > BYTES && behind >= head_bytes(F)) continue;
      const int more = at + 512 > group_bytes(F) && behind >= 0 ? head : 0;
      unsigned char* to = stage + to_weights + i / ROUNDS * S::WARPS * BYTES;
      cp_async16(to + at, weights[i / ROUNDS] + more + at, true);
    }
  }

  // Half of the next group's rows of x; zeros behind the last input. Of rows that are not there, anything is
  // summed up.
  __device__ void copy_rows(unsigned char* stage, int half) const {
#pragma unroll
    for (int i = half; i < S::ROWS / APART; i += 2)
      if (i * APART < rows)
        cp_async16(stage + to_x + i * APART * 128, x + (long long)i * jump, x_group * GROUP_INPUTS < cols);
  }

  __device__ void next_weights() {
    const int head = head_bytes(F) && weights_group % HEAD_GROUPS == HEAD_GROUPS - 1 ? head_bytes(F) : 0;
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++) weights[i] += group_bytes(F) + head;
    weights_group++;
  }
  __device__ void next_rows() { x += 128, x_group++; }
};

// Until all but the `pending` youngest of this thread's groups of copies have landed.
__device__ inline void wait_for_copies(int pending) {
  if (pending >= 2) cp_async_wait<2>();
  else if (pending == 1) cp_async_wait<1>();
  else cp_async_wait<0>();
}

// A pair of the same bf16, of a small whole number.
__device__ constexpr uint32_t bf16_pair_of(float number) {
  return number == 128.f ? 0x43004300u : number == 136.f ? 0x43084308u : number == 144.f ? 0x43104310u : 0;
}
static_assert(fragment_bias(Q4_0) == 136.f && fragment_bias(Q5_0) == 144.f && fragment_bias(Q5_K) == 128.f,
              "no other bias");

// A's registers of both tiles of half a group, as bf16: whole numbers times rounded scales, which is half the
// instructions of `weights` in f32 and errs by 2^-9 once more.
template <int F>
__device__ inline void fetch_weights(uint32_t (&a)[2][4], const unsigned char* group, int lane, int half) {
  fragment<F>(group, lane, half, a);
  if (F == BF16) return;
  const Scales s = scales<F>(group, group + group_bytes(F), lane, half, lane % 4 / 2);
  constexpr uint32_t bias = bf16_pair_of(fragment_bias(F)), minus_zero = 0x80008000u;
#pragma unroll
  for (int p = 0; p < 8; p++) {
    uint32_t& pair = a[p / 4][p % 4];
    const float scale = s.scale[p % 2], minimum = s.minimum[p % 2];
    if (bias != 0) pair = sub_bf16x2(pair, bias);
    const uint32_t more = has_minimum(F) ? pack_bf16(-minimum, -minimum) : minus_zero;
    pair = fma_bf16x2(pair, pack_bf16(scale, scale), more);
  }
}

// B's registers of both tiles of half a group, for eight rows.
template <class S>
__device__ inline void fetch_rows(uint32_t (&b)[4], const unsigned char* stage, int n, int half) {
  const int lane = threadIdx.x % 32, row = 8 * (S::across() * S::N + n) + lane / 4;
  const uint4 v = *reinterpret_cast<const uint4*>(stage + place_of(row, 4 * half + lane % 4));
  b[0] = v.x, b[1] = v.y, b[2] = v.z, b[3] = v.w;
}

// sums += weights x rows over the task's groups of inputs. A stage of `memory` is a group's weights, then its
// rows of x. Copies are `stages - 1` groups ahead, asked for in the first half of a group. What is multiplied
// is one group of 16 outputs ahead on the weights' side; eight rows are read anew as soon as the last outputs
// have met them.
template <class S, int F>
__device__ inline void accumulate(float (&sums)[S::M][S::N][4], unsigned char* memory, const Task& task) {
  using Copies = Copies<S, F>;
  Copies copies(task);
  const int ahead = task.stages - 1, groups = task.end - task.first;
#pragma unroll 1
  for (int i = 0; i < min(ahead, groups); i++, copies.next_weights())
    for (int half = 0; half < 2; half++) copies.copy_weights(memory + i * Copies::STAGE, half);
  wait_for_launch_before();
#pragma unroll 1
  for (int i = 0; i < ahead; i++, cp_async_commit()) {
    if (i >= groups) continue;
    for (int half = 0; half < 2; half++) copies.copy_rows(memory + i * Copies::STAGE, half);
    copies.next_rows();
  }
  let_next_launch_begin();
  wait_for_copies(ahead - 1);
  __syncthreads();

  const unsigned char* now = memory;
  unsigned char* later = memory + ahead * Copies::STAGE;
  unsigned char* const end = memory + task.stages * Copies::STAGE;
  const int mine = S::down() * S::M * staged_bytes(F), lane = threadIdx.x % 32;
  uint32_t a[2][2][4], b[S::N][4];
  fetch_weights<F>(a[0], now + mine, lane, 0);
#pragma unroll
  for (int n = 0; n < S::N; n++) fetch_rows<S>(b[n], now + Copies::X, n, 0);
#pragma unroll(S::HALVES)
  for (int i = 0; i < 2 * groups; i++) {
    const int half = i % 2, group = i / 2;
#pragma unroll
    for (int m = 0; m < S::M; m++) {
      if (m < 2 && half == 0 && group + ahead < groups) {
        copies.copy_weights(later, m);
        copies.copy_rows(later, m);
      }
      const bool last = m == S::M - 1;
      if (last && half == 1) {
        copies.next_weights(), copies.next_rows();
        cp_async_commit();
        // Behind the barrier all warps hold the last operands of this stage: the next turn overwrites it.
        wait_for_copies(ahead - 1);
        __syncthreads();
        now = now + Copies::STAGE == end ? memory : now + Copies::STAGE;
        later = later + Copies::STAGE == end ? memory : later + Copies::STAGE;
      }
      const int next_half = last ? 1 - half : half;
      fetch_weights<F>(a[(m + 1) % 2], now + mine + (m + 1) % S::M * staged_bytes(F), lane, next_half);
#pragma unroll
      for (int tile = 0; tile < 2; tile++)
#pragma unroll
        for (int n = 0; n < S::N; n++) {
          const uint32_t pair[2] = {b[n][2 * tile], b[n][2 * tile + 1]};
          mma_16816(sums[m][n], a[m % 2][tile], pair);
          if (tile == 1 && last) fetch_rows<S>(b[n], now + Copies::X, n, next_half);
        }
    }
  }
  cp_async_wait<0>();
  __syncthreads();
}

// Where a block's tile stands in the product.
struct Corner {
  int row, rows;        // its first row, and how many there are from there on
  int output, outputs;  // its first output in its part, and how many the part has; of GATED, gates
  int column;           // of the part's first output
};

// Numbers from one row to the next where a warp's sums pass through shared memory: four more than its
// outputs, so that neither direction meets a bank twice.
template <class S>
constexpr int PASSING = 16 * S::M + 4;

// Writes 16 rows of a warp's outputs, W neighbouring ones at a time; `first` is the first output of the warp.
template <class S, int W>
__device__ inline void write_rows(const float* sums, const Output& out, const Corner& corner, int first,
                                  int row0) {
  const bool gated = out.kind == GATED;
  const int bits = (S::M == 4 ? 6 : 5) - (W == 4 ? 2 : 0) - int(gated);  // of the number of pieces in a row
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < 16 << bits; i += 32) {
    const int row = i >> bits, o = (i & ((1 << bits) - 1)) * W;
    // 16 gates and the 16 outputs that they gate take turns.
    const int output = gated ? first / 2 + o : first + o;
    if (row0 + row >= corner.rows || output >= corner.outputs) continue;
    const float* from = sums + row * PASSING<S> + (gated ? o / 16 * 32 + o % 16 : o);
    float v[W];
    read(v, from);
    if (gated) {
      float up[W];
      read(up, from + 16);
      put_gated(out, corner.row + row0 + row, corner.column + output, v, up);
    } else {
      put(out, corner.row + row0 + row, corner.column + output, v);
    }
  }
}

// Writes a warp's sums. They pass through shared memory, 16 rows at a time, so that lanes write neighbouring
// outputs.
template <class S>
__device__ inline void write(const float (&sums)[S::M][S::N][4], unsigned char* memory, const Output& out,
                             const Corner& corner) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float* const mine = reinterpret_cast<float*>(memory) + threadIdx.x / 32 * 16 * PASSING<S>;
  const int first = corner.output + S::down() * 16 * S::M;
#pragma unroll 1
  for (int turn = 0; turn < S::N; turn += 2) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < S::M * S::N * 4; i++) {
      // Registers cannot be counted through at run time, and the rest of the loop is too long to be there N /
      // 2 times.
      const int m = i / 4 / S::N, n = i / 4 % S::N, e = i % 4;
      const int row = n % 2 * 8 + 2 * t + e % 2, output = 16 * m + e / 2 * 8 + g;
      if (n / 2 * 2 == turn) mine[row * PASSING<S> + output] = sums[m][n][e];
    }
    __syncwarp();
    const int row0 = 8 * (S::across() * S::N + turn);
    if (out.vectors) write_rows<S, 4>(mine, out, corner, first, row0);
    else write_rows<S, 1>(mine, out, corner, first, row0);
  }
}
