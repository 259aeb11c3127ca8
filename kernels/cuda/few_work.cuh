// Products of few rows: what there is to do, and how activations lie in shared memory.
#pragma once
#include "format.cuh"
#include "norm.cuh"

#define WARPS NORM_WARPS
#define THREADS NORM_THREADS
enum OutputKind { NUMBERS, GATED, GELU, ROUNDED };

// The kernels' arguments.
struct Work {
  const unsigned char *part0, *part1, *part2;  // weights, see format.cuh; one that is not there has no rows
  int formats;                                 // WeightFormat of each part, a byte each
  int rows0, rows1, rows2;                     // outputs of each part
  int gate_up;                                 // whether parts 0 and 1 are computed side by side
  int cols;                                    // inputs
  int n, rows_a_block;                         // rows of activations; grid.y counts those of a block
  int stages, stage_bytes, weight_bytes;       // steps in the ring, bytes of one, those for its weights
  int staged;                                  // whether all activations are in shared memory, or in the ring
  const void* plain;                           // activation numbers [n, cols], or null and instead:
  const float *residual, *y, *post_norm;       // [n, cols], [n, cols] or null, [cols] or null
  const float* norm;                           // [cols]
  float* residual_out;                         // [n, cols]
  float eps;
  const float* bias;                           // [outputs] or null
  int bias_stride;                             // from one row's bias to the next one's; 0 where all have one
  void* out;                                   // [n, outputs], or [n, outputs / 2] of gate_up
  int output;                                  // OutputKind
  float soft_cap;                              // 0 without one
};
#define WORK_PARAMETERS                                                                                      \
  const unsigned char *part0, const unsigned char *part1, const unsigned char *part2, int formats,           \
    int rows0, int rows1, int rows2, int gate_up, int cols, int n, int rows_a_block, int stages,             \
    int stage_bytes, int weight_bytes, int staged, const void *plain, const float *residual, const float *y, \
    const float *post_norm, const float *norm, float *residual_out, float eps, const float *bias,            \
    int bias_stride, void *out, int output, float soft_cap
#define WORK                                                                                                 \
  { part0, part1, part2, formats, rows0, rows1, rows2, gate_up, cols, n, rows_a_block, stages, stage_bytes,  \
    weight_bytes, staged, plain, residual, y, post_norm, norm, residual_out, eps, bias, bias_stride, out,    \
    output, soft_cap }

__device__ inline int groups_of(const Work& w) { return (w.cols + GROUP_INPUTS - 1) / GROUP_INPUTS; }
__device__ inline int group_rows(int rows) { return (rows + 15) / 16; }
// What a block takes at a time: a row of groups, or one of gate and one of up.
__device__ inline int jobs_of(const Work& w) {
  return w.gate_up ? group_rows(w.rows0) : group_rows(w.rows0) + group_rows(w.rows1) + group_rows(w.rows2);
}

// Groups of a step: so many that what a step costs besides its products counts little. Where groups have
// heads it is those of one head, which stands behind them.
__device__ constexpr int step_groups(int format) {
  return format == F32 ? 1 : format == BF16 || format == Q8_0 ? 2 : HEAD_GROUPS;
}

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

// Activations of a group [rows][64], in 16-byte chunks. In bf16 the halves of every other row change places,
// so that eight lanes that read together meet all banks.
template <bool EXACT> struct Slice {
  static constexpr int ROW = GROUP_INPUTS * (EXACT ? 4 : 2);
  static constexpr int CHUNKS = ROW / 16;
  static constexpr int NUMBERS_A_CHUNK = EXACT ? 4 : 8;
  __device__ static int chunk_at(int row, int chunk) {
    return row * ROW + 16 * (EXACT ? chunk : chunk ^ row % 2 * 4);
  }
};
