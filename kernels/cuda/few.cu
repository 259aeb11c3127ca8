// Products of few rows of activations with a matrix, fused with what stands around them: a decoding step's and a
// keystroke's work. They are bound by how fast weights come from memory, so everything here keeps loads under way.
//
// A block's eight warps compute 16 outputs of all rows at a time: warp w takes the steps w, w + 8, ... along the
// inputs, a step being one group or two, and the warps' sums meet in shared memory in the order of the warps. The
// split depends on the matrix only, so a row's bits are the same whatever rows are computed beside it. Each warp copies
// its steps through a ring in shared memory that is always a few of them ahead, across the ends of rows of groups too;
// the copies begin before the launch in front of this one has ended. A block goes on until no outputs are left, so
// that what it does first (residual and norm) is done once.
#include "activation.cuh"
#include "format.cuh"
#include "norm.cuh"

#define WARPS NORM_WARPS
#define THREADS NORM_THREADS
// Numbers from a row's partial sums of 16 outputs to the next row's: more than 16, against bank conflicts.
#define PARTIAL_STRIDE 20

enum OutputKind { NUMBERS, GATED, GELU };

// The kernels' arguments.
struct Work {
  const unsigned char *part0, *part1, *part2;  // weights, see format.cuh; parts that are not there have no rows
  int formats;                                 // WeightFormat of each part, a byte each
  int rows0, rows1, rows2;                     // outputs of each part
  int gate_up;                                 // whether parts 0 and 1 are computed side by side
  int cols;                                    // inputs
  int n, rows_a_block;                         // rows of activations; grid.y counts those of a block
  int stages, weight_bytes;                    // steps in the ring; bytes for the weights of one
  int staged;                                  // whether all activations are in shared memory; else in the ring
  const void* plain;                           // activation numbers [n, cols]; null where the five below are used
  const float *residual, *y, *post_norm, *norm;  // [n, cols], [n, cols] or null, [cols] or null, [cols]
  float* residual_out;                         // [n, cols]
  float eps;
  const float* bias;                           // [outputs] or null
  void* out;                                   // [n, outputs], or [n, outputs / 2] of gate_up
  int output;                                  // OutputKind
  float soft_cap;                              // 0 without one
};
#define WORK_PARAMETERS                                                                                            \
  const unsigned char *part0, const unsigned char *part1, const unsigned char *part2, int formats, int rows0,      \
    int rows1, int rows2, int gate_up, int cols, int n, int rows_a_block, int stages, int weight_bytes,            \
    int staged, const void *plain, const float *residual, const float *y, const float *post_norm, const float *norm,           \
    float *residual_out, float eps, const float *bias, void *out, int output, float soft_cap
#define WORK                                                                                                       \
  { part0, part1, part2, formats, rows0, rows1, rows2, gate_up, cols, n, rows_a_block, stages, weight_bytes,       \
    staged, plain, residual, y, post_norm, norm, residual_out, eps, bias, out, output, soft_cap }

__device__ inline int groups_of(const Work& w) { return (w.cols + GROUP_INPUTS - 1) / GROUP_INPUTS; }
__device__ inline int group_rows(int rows) { return (rows + 15) / 16; }
// What a block takes at a time: a row of groups, or one of gate and one of up.
__device__ inline int jobs_of(const Work& w) {
  return w.gate_up ? group_rows(w.rows0) : group_rows(w.rows0) + group_rows(w.rows1) + group_rows(w.rows2);
}

// Groups of a step: as many as make it worth its while. Those of a step have one head.
__device__ constexpr int step_groups(int format) { return format == F32 ? 1 : 2; }

// A part of the matrix, in a table in shared memory.
struct Part {
  const unsigned char* at;
  long long row_bytes;      // of a row of groups
  int format, body, head;   // bytes of a group and of a head
  int groups_a_step;
  int first_job;
  int output, end;          // the first of its outputs, and the one behind the last
};
#define PARTS 3
__device__ inline void fill_table(const Work& w, Part* parts) {
  const int part = threadIdx.x;
  if (part >= PARTS) return;
  const int before_1 = group_rows(w.rows0), before_2 = before_1 + group_rows(w.rows1);
  const int format = w.formats >> (8 * part) & 0xff;
  const int output = part == 0 ? 0 : part == 1 ? w.rows0 : w.rows0 + w.rows1;
  Part& p = parts[part];
  p.at = part == 0 ? w.part0 : part == 1 ? w.part1 : w.part2;
  p.row_bytes = row_bytes(format, groups_of(w));
  p.format = format, p.body = group_bytes(format), p.head = head_bytes(format);
  p.groups_a_step = step_groups(format);
  p.first_job = w.gate_up || part == 0 ? 0 : part == 1 ? before_1 : before_2;
  p.output = output, p.end = output + (part == 0 ? w.rows0 : part == 1 ? w.rows1 : w.rows2);
}
// The part that the r-th row of groups of a job is of.
__device__ inline const Part& part_of(const Work& w, const Part* parts, int job, int r) {
  return parts[w.gate_up ? r : (job >= parts[1].first_job) + (job >= parts[2].first_job)];
}

// Activations of a group [rows][64], in 16-byte chunks. In bf16 the halves of every other row change places, so that
// eight lanes that read together meet all banks.
template <bool EXACT> struct Slice {
  static constexpr int ROW = GROUP_INPUTS * (EXACT ? 4 : 2);
  static constexpr int CHUNKS = ROW / 16;
  static constexpr int NUMBERS_A_CHUNK = EXACT ? 4 : 8;
  __device__ static int chunk_at(int row, int chunk) { return row * ROW + 16 * (EXACT ? chunk : chunk ^ row % 2 * 4); }
};

// Where a warp is on its way through all steps that it takes, for one of its lanes.
struct Walk {
  const unsigned char* from;  // the lane's first 16 bytes of the step
  int to_head;                // from there to the lane's 16 bytes of its head
  int to_next;                // to the warp's next step
  int body, head;             // bytes of a group and of a head
  int groups_a_step, group;
  int job, r;

  __device__ void begin(const Work& w, const Part* parts, int warp, int lane) {
    // A warp without a step has none in any row.
    job = blockIdx.x, r = 0;
    begin_row(w, parts, warp, lane);
    if (group >= groups_of(w)) job = jobs_of(w);
  }
  __device__ bool done(const Work& w) const { return job >= jobs_of(w); }
  __device__ void begin_row(const Work& w, const Part* parts, int warp, int lane) {
    const Part& part = part_of(w, parts, job, r);
    body = part.body, head = part.head, groups_a_step = part.groups_a_step;
    group = warp * groups_a_step;
    from = part.at + (job - part.first_job) * part.row_bytes + group * body + group / HEAD_GROUPS * head + 16 * lane;
    to_head = (HEAD_GROUPS - group % HEAD_GROUPS) * body;
    to_next = WARPS * groups_a_step * body + WARPS * groups_a_step / HEAD_GROUPS * head;
  }
  __device__ void next(const Work& w, const Part* parts, int warp, int lane) {
    group += WARPS * groups_a_step;
    from += to_next;
    if (group < groups_of(w)) return;
    if (++r > w.gate_up) r = 0, job += gridDim.x;
    if (!done(w)) begin_row(w, parts, warp, lane);
  }
};

// Copies a lane's 16 of every 512 bytes. `bytes` in all, the same in every lane.
__device__ inline void copy_lanes(unsigned char* to, const unsigned char* from, int bytes, int lane) {
  const int mine = bytes - 16 * lane;
#pragma unroll
  for (int at = 0; at < 1536; at += 512)
    if (at < mine) cp_async16(to + at, from + at, true);
  if (bytes <= 1536) return;
#pragma unroll
  for (int at = 1536; at < 4096; at += 512)
    if (at < mine) cp_async16(to + at, from + at, true);
}

// A warp's ring: steps, each with its head and, unless all activations are in shared memory, its slices of these.
template <bool EXACT> struct Ring {
  const Part* parts;
  unsigned char* memory;
  int stage_bytes, slot, lane, warp;
  int first, n;  // rows of activations
  Walk ahead;

  __device__ void copy_weights(const Work& w, int to_slot, const Walk& at) {
    if (at.done(w)) return;
    unsigned char* to = memory + to_slot * stage_bytes + 16 * lane;
    copy_lanes(to, at.from, min(at.groups_a_step, groups_of(w) - at.group) * at.body, lane);
    if (16 * lane < at.head) cp_async16(to + at.groups_a_step * at.body, at.from + at.to_head, true);
  }
  __device__ void copy_activations(const Work& w, int to_slot, const Walk& at) {
    if (w.staged || at.done(w)) return;
    // A lane copies the same chunk of each row that it copies from, and these rows are all even or all odd.
    typedef Slice<EXACT> S;
    const bool one = at.groups_a_step * S::CHUNKS <= 16;
    const int chunk = one ? lane % 16 : lane % (2 * S::CHUNKS), row = one ? lane / 16 : lane / (2 * S::CHUNKS);
    const int rows = one ? 2 : 16 / S::CHUNKS;
    const int col = at.group * GROUP_INPUTS + chunk * S::NUMBERS_A_CHUNK;
    const bool there = col < w.cols;
    const long long row_bytes = w.cols * (EXACT ? 4 : 2);
    const unsigned char* from = static_cast<const unsigned char*>(w.plain) + (first + row) * row_bytes;
    if (there) from += col * (EXACT ? 4 : 2);
    unsigned char* to = memory + to_slot * stage_bytes + w.weight_bytes + chunk / S::CHUNKS * n * S::ROW +
                        S::chunk_at(row, chunk % S::CHUNKS);
#pragma unroll 1
    for (int i = row; i < n; i += rows, from += rows * row_bytes, to += rows * S::ROW) cp_async16(to, from, there);
  }

  // Copies the first steps, but not yet the activations.
  __device__ void begin(const Work& w) {
    slot = 0;
    ahead.begin(w, parts, warp, lane);
#pragma unroll 1
    for (int s = 0; s < w.stages - 1; s++) {
      copy_weights(w, s, ahead);
      if (!ahead.done(w)) ahead.next(w, parts, warp, lane);
    }
  }
  // Copies the activations of the first steps, once what was launched before has written them.
  __device__ void begin_activations(const Work& w) {
    Walk at;
    at.begin(w, parts, warp, lane);
#pragma unroll 1
    for (int s = 0; s < w.stages - 1; s++) {
      copy_activations(w, s, at);
      cp_async_commit();
      if (!at.done(w)) at.next(w, parts, warp, lane);
    }
  }
  // The next step, once it is there; copies the one that is `stages - 1` behind it to where the last one was.
  __device__ const unsigned char* take(const Work& w) {
    if (w.stages == 3) cp_async_wait<1>();
    else if (w.stages == 4) cp_async_wait<2>();
    else if (w.stages == 8) cp_async_wait<6>();
    else cp_async_wait<0>();
    __syncwarp();
    if (!ahead.done(w)) {
      const int free_slot = slot == 0 ? w.stages - 1 : slot - 1;
      copy_weights(w, free_slot, ahead);
      copy_activations(w, free_slot, ahead);
      ahead.next(w, parts, warp, lane);
    }
    cp_async_commit();
    const unsigned char* taken = memory + slot * stage_bytes;
    slot = slot + 1 == w.stages ? 0 : slot + 1;
    return taken;
  }
};

// Sums of a lane. In bf16 those of the mma's D: outputs g and g + 8, rows 8 c + 2 t and one more. In f32, before the
// four lanes of a g are added up, of outputs g and g + 8 and every row.
template <bool EXACT, int TILES> struct Sums {
  float tile[EXACT ? 2 : TILES][EXACT ? 8 : 4];

  __device__ void clear() {
#pragma unroll
    for (int c = 0; c < (EXACT ? 2 : TILES); c++)
#pragma unroll
      for (int i = 0; i < (EXACT ? 8 : 4); i++) tile[c][i] = 0.f;
  }

  // Adds a group of weights times activations.
  template <int F> __device__ void add(const unsigned char* group, const unsigned char* head, const unsigned char* x,
                                       int lane, int n) {
#pragma unroll (EXACT ? 1 : 2)
    for (int half = 0; half < 2; half++) {
      if constexpr (EXACT) {
        add_exact<F>(group, head, x, lane, half, n);
      } else {
        add_tiles<F>(group, head, x, lane, half, n);
      }
    }
  }

  template <int F> __device__ void add_exact(const unsigned char* group, const unsigned char* head,
                                             const unsigned char* x, int lane, int half, int n) {
    float weight[2][8];
    numbers<F>(group, head, lane, half, weight);
#pragma unroll
    for (int row = 0; row < 8; row++) {
      if (row >= n) break;
      const float4* at = reinterpret_cast<const float4*>(x + row * Slice<true>::ROW) + 8 * half + lane % 4 * 2;
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
  template <int F> __device__ void add_tiles(const unsigned char* group, const unsigned char* head,
                                             const unsigned char* x, int lane, int half, int n) {
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

// residual + y, or + rmsnorm(y) * post_norm, where `scale` is 1 / rms(y).
__device__ inline float4 updated(const Work& w, long long row, int col, float scale) {
  const float4 v = four(w.residual + row + col);
  if (w.y == nullptr) return v;
  const float4 y = four(w.y + row + col);
  return w.post_norm == nullptr ? plus(v, y) : plus_normed(v, y, scale, four(w.post_norm + col));
}

// Brings the residual stream up to date and its norm into shared memory, [group][row][64]. Every block does all of it;
// the first one writes the residual stream. `meeting` is [2][rows][WARPS].
template <bool EXACT> __device__ inline void norm_into(const Work& w, int first, int n, unsigned char* x,
                                                       float* meeting) {
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
    const float scale = w.post_norm == nullptr ? 1.f : inverse_rms(sum_of_warps(meeting + row * WARPS), w.cols, w.eps);
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
    const float before =
      w.post_norm == nullptr ? 1.f : inverse_rms(sum_of_warps(meeting + row * WARPS), w.cols, w.eps);
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
      cp_async16(x + i / S::CHUNKS * n * S::ROW + S::chunk_at(row, i % S::CHUNKS), from + (there ? 16 * i : 0), there);
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
template <bool EXACT> __device__ inline void finish(const Work& w, const Part* parts, int job, int first, int n,
                                                    const float* partial) {
  const int row = threadIdx.x / 16, output = threadIdx.x % 16;
  if (row >= n) return;
  const Part& part = part_of(w, parts, job, 0);
  const int o = part.output + 16 * (job - part.first_job) + output;
  const int outputs = w.gate_up ? w.rows0 : w.rows0 + w.rows1 + w.rows2;
  if (o >= part.end) return;
  float v = whole_sum(partial, n, row, output);
  if (w.bias != nullptr) v += w.bias[o];
  if (w.output == GATED) {
    float up = whole_sum(partial + WARPS * n * PARTIAL_STRIDE, n, row, output);
    if (w.bias != nullptr) up += w.bias[w.rows0 + o];
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
template <bool EXACT, int TILES, int F> __device__ inline void add_row(const Work& w, Ring<EXACT>& ring,
                                                                       const unsigned char* x,
                                                                       Sums<EXACT, TILES>& sums) {
  constexpr int STEP = step_groups(F);
  const int slice_bytes = ring.n * Slice<EXACT>::ROW;
#pragma unroll 1
  for (int group = STEP * ring.warp; group < groups_of(w); group += STEP * WARPS) {
    const unsigned char* taken = ring.take(w);
    const unsigned char* slice = w.staged ? x + group * slice_bytes : taken + w.weight_bytes;
#pragma unroll (EXACT ? 1 : STEP)
    for (int i = 0; i < STEP; i++) {
      if (group + i < groups_of(w))
        sums.template add<F>(taken + i * group_bytes(F), taken + STEP * group_bytes(F), slice + i * slice_bytes,
                             ring.lane, ring.n);
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
  ring.stage_bytes = w.weight_bytes + (w.staged ? 0 : 2 * w.rows_a_block * Slice<EXACT>::ROW);
  ring.memory = shared + ring.warp * w.stages * ring.stage_bytes;
  unsigned char* x = shared + WARPS * w.stages * ring.stage_bytes;
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
