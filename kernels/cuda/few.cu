// Products of few rows of activations with a matrix, fused with what stands around them: a decoding step's
// and a keystroke's work. They are bound by how fast weights come from memory, so everything here keeps loads
// under way.
//
// A block's eight warps compute 16 outputs of all rows at a time: warp w takes the steps w, w + 8, ... along
// the inputs, a step being up to four groups, and the warps' sums meet in shared memory in the order of the
// warps. The split depends on the matrix only, so a row's bits are the same whatever rows are computed beside
// it. Each warp copies its steps through a ring in shared memory that is always a few of them ahead, across
// the ends of rows of groups too; the copies begin before the launch in front of this one has ended. A block
// goes on until no outputs are left, so that what it does first (residual and norm) is done once.
#include "activation.cuh"
#include "few_ring.cuh"
#include "few_sums.cuh"

// residual + y, or + rmsnorm(y) * post_norm, where `scale` is 1 / rms(y).
__device__ inline float4 updated(const Work& w, long long row, int col, float scale) {
  const float4 v = four(w.residual + row + col);
  if (w.y == nullptr) return v;
  const float4 y = four(w.y + row + col);
  return w.post_norm == nullptr ? plus(v, y) : plus_normed(v, y, scale, four(w.post_norm + col));
}

// 1 / rms(y) of the warps' sums, where it is needed.
__device__ inline float inverse_rms_of_y(const Work& w, const float* sums) {
  return w.post_norm == nullptr ? 1.f : inverse_rms(sum_of_warps(sums), w.cols, w.eps);
}

// Brings the residual stream up to date and its norm into shared memory, [group][row][64]. Every block does
// all of it; the first one writes the residual stream. `meeting` is [2][rows][WARPS].
template <bool EXACT>
__device__ inline void norm_into(const Work& w, int first, int n, unsigned char* x, float* meeting) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float* second = meeting + n * WARPS;
  if (w.post_norm != nullptr) {
    for (int row = 0; row < n; row++) {
      float sum = 0.f;
#pragma unroll 2
      for (int col = 4 * threadIdx.x; col < w.cols; col += 4 * THREADS)
        sum = add_squares(four(w.y + (long long)(first + row) * w.cols + col), sum);
      sum = warp_sum(sum);
      if (lane == 0) meeting[row * WARPS + warp] = sum;
    }
    __syncthreads();
  }
  for (int row = 0; row < n; row++) {
    const long long at = (long long)(first + row) * w.cols;
    const float scale = inverse_rms_of_y(w, meeting + row * WARPS);
    float sum = 0.f;
#pragma unroll 2
    for (int col = 4 * threadIdx.x; col < w.cols; col += 4 * THREADS) {
      const float4 v = updated(w, at, col, scale);
      if (blockIdx.x == 0) *reinterpret_cast<float4*>(w.residual_out + at + col) = v;
      sum = add_squares(v, sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) second[row * WARPS + warp] = sum;
  }
  __syncthreads();
  for (int row = 0; row < n; row++) {
    const long long at = (long long)(first + row) * w.cols;
    const float before = inverse_rms_of_y(w, meeting + row * WARPS);
    const float scale = inverse_rms(sum_of_warps(second + row * WARPS), w.cols, w.eps);
#pragma unroll 2
    for (int col = 4 * threadIdx.x; col < groups_of(w) * GROUP_INPUTS; col += 4 * THREADS) {
      float4 v = {0.f, 0.f, 0.f, 0.f};
      if (col < w.cols) v = normed(updated(w, at, col, before), scale, four(w.norm + col));
      const int in_group = col % GROUP_INPUTS, chunk = in_group / Slice<EXACT>::NUMBERS_A_CHUNK;
      unsigned char* to = x + col / GROUP_INPUTS * n * Slice<EXACT>::ROW + Slice<EXACT>::chunk_at(row, chunk);
      if (EXACT) {
        *reinterpret_cast<float4*>(to) = v;
      } else {
        *reinterpret_cast<uint2*>(to + in_group % 8 * 2) = uint2{pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)};
      }
    }
  }
  __syncthreads();
}

// Begins to copy all activations into shared memory, [group][row][64].
template <bool EXACT> __device__ inline void copy_into(const Work& w, int first, int n, unsigned char* x) {
  typedef Slice<EXACT> S;
  const long long row_bytes = w.cols * (EXACT ? 4 : 2);
  for (int row = 0; row < n; row++) {
    const unsigned char* from = static_cast<const unsigned char*>(w.plain) + (first + row) * row_bytes;
    for (int i = threadIdx.x; i < groups_of(w) * S::CHUNKS; i += THREADS) {
      const bool there = 16 * i < row_bytes;
      unsigned char* to = x + i / S::CHUNKS * n * S::ROW + S::chunk_at(row, i % S::CHUNKS);
      cp_async16(to, from + (there ? 16 * i : 0), there);
    }
  }
}

// The partial sums of an output of a row, [warp][row][output], in the order of the warps.
__device__ inline float whole_sum(const float* partial, int n, int row, int output) {
  float sum = 0.f;
#pragma unroll
  for (int w = 0; w < WARPS; w++) sum += partial[(w * n + row) * PARTIAL_STRIDE + output];
  return sum;
}

// Adds up a job's outputs and writes them.
template <bool EXACT>
__device__ inline void finish(const Work& w, const Part* parts, int job, int first, int n,
                              const float* partial) {
  const int row = threadIdx.x / 16, output = threadIdx.x % 16;
  if (row >= n) return;
  const Part& part = part_of(w, parts, job, 0);
  const int o = part.output + 16 * (job - part.first_job) + output;
  const int outputs = w.gate_up ? w.rows0 : w.rows0 + w.rows1 + w.rows2;
  if (o >= part.end) return;
  float v = whole_sum(partial, n, row, output);
  const float* bias = w.bias == nullptr ? nullptr : w.bias + (long long)(first + row) * w.bias_stride + o;
  if (bias != nullptr) v += *bias;
  if (w.output == GATED) {
    float up = whole_sum(partial + WARPS * n * PARTIAL_STRIDE, n, row, output);
    if (bias != nullptr) up += bias[w.rows0];
    v = gelu_tanh(v) * up;
  } else if (w.output == GELU) {
    v = gelu_tanh(v);
  } else if (w.soft_cap != 0.f) {
    v = w.soft_cap * tanhf(v / w.soft_cap);
  }
  const long long at = (long long)(first + row) * outputs + o;
  store_number(w.out, at, v, EXACT || w.output == NUMBERS);
}

// A warp's part of a row of groups.
template <bool EXACT, int TILES, int F>
__device__ inline void add_row(const Work& w, Ring<EXACT>& ring, const unsigned char* x,
                               Sums<EXACT, TILES>& sums) {
  constexpr int STEP = step_groups(F);
  const int slice_bytes = ring.n * Slice<EXACT>::ROW;
#pragma unroll 1
  for (int group = STEP * ring.warp; group < groups_of(w); group += STEP * WARPS) {
    const unsigned char* taken = ring.take(w);
    const unsigned char* slice = w.staged ? x + group * slice_bytes : taken + w.weight_bytes;
    // Two groups at once fill each other's waits, where there are registers for it.
#pragma unroll (EXACT || TILES == 2 ? 1 : 2)
    for (int i = 0; i < STEP; i++) {
      const unsigned char *weights = taken + i * group_bytes(F), *head = taken + STEP * group_bytes(F);
      if (group + i < groups_of(w))
        sums.template add<F>(weights, head, slice + i * slice_bytes, ring.lane, ring.n);
    }
  }
}

// Dynamic shared memory: each warp's ring; staged activations [group][row][64]; partial sums
// [2][gate, up][warp][row][PARTIAL_STRIDE], whose beginning is where the norm's sums meet before.
template <bool EXACT, int TILES> __device__ inline void few(const Work& w) {
  SHARED(Part, parts, [PARTS]);
  SHARED_DYN(unsigned char, shared);
  fill_table(w, parts);
  __syncthreads();
  Ring<EXACT> ring;
  ring.parts = parts;
  ring.warp = threadIdx.x / 32, ring.lane = threadIdx.x % 32;
  ring.first = blockIdx.y * w.rows_a_block, ring.n = min(w.rows_a_block, w.n - ring.first);
  ring.memory = shared + ring.warp * w.stages * w.stage_bytes;
  unsigned char* x = shared + WARPS * w.stages * w.stage_bytes;
  const int x_bytes = w.staged ? groups_of(w) * w.rows_a_block * Slice<EXACT>::ROW : 0;
  float* partial = reinterpret_cast<float*>(x + x_bytes);

  ring.begin(w);
  let_next_launch_begin();
  wait_for_launch_before();
  if (w.staged && w.plain != nullptr) copy_into<EXACT>(w, ring.first, ring.n, x);
  ring.begin_activations(w);
  if (w.plain == nullptr) {
    norm_into<EXACT>(w, ring.first, ring.n, x, partial);
  } else if (w.staged) {
    cp_async_wait<0>();
    __syncthreads();
  }

  const int sums_a_warp = ring.n * PARTIAL_STRIDE, sums_a_row = WARPS * sums_a_warp;
  float* now = partial;
  float* then = partial + (1 + w.gate_up) * sums_a_row;
  for (int job = blockIdx.x; job < jobs_of(w); job += gridDim.x) {
    for (int r = 0; r <= w.gate_up; r++) {
      Sums<EXACT, TILES> sums;
      sums.clear();
      switch (part_of(w, parts, job, r).format) {
        case F32: if constexpr (EXACT) add_row<EXACT, TILES, F32>(w, ring, x, sums); break;
        case BF16: add_row<EXACT, TILES, BF16>(w, ring, x, sums); break;
        case Q8_0: add_row<EXACT, TILES, Q8_0>(w, ring, x, sums); break;
        case Q4_0: add_row<EXACT, TILES, Q4_0>(w, ring, x, sums); break;
        case Q4_1: add_row<EXACT, TILES, Q4_1>(w, ring, x, sums); break;
        case Q5_0: add_row<EXACT, TILES, Q5_0>(w, ring, x, sums); break;
        case Q5_1: add_row<EXACT, TILES, Q5_1>(w, ring, x, sums); break;
        case Q4_K: add_row<EXACT, TILES, Q4_K>(w, ring, x, sums); break;
        case Q5_K: add_row<EXACT, TILES, Q5_K>(w, ring, x, sums); break;
        case Q6_K: add_row<EXACT, TILES, Q6_K>(w, ring, x, sums); break;
      }
      sums.write(now + r * sums_a_row + ring.warp * sums_a_warp, ring.lane, ring.n);
    }
    // The next job's sums go elsewhere, so that nobody waits for those who are still adding up this one's.
    __syncthreads();
    finish<EXACT>(w, parts, job, ring.first, ring.n, now);
    float* other = now;
    now = then, then = other;
  }
  cp_async_wait<0>();
}

// Activations in bf16, up to 8 rows.
KERNEL_OF(256, 2) few_eight(WORK_PARAMETERS) { few<false, 1>(Work WORK); }
// Activations in bf16, up to 16 rows.
KERNEL_OF(256, 2) few_sixteen(WORK_PARAMETERS) { few<false, 2>(Work WORK); }
// Everything in f32, 8 rows a block.
KERNEL_OF(256, 2) few_exact(WORK_PARAMETERS) { few<true, 1>(Work WORK); }
