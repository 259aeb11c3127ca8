// Products of a matrix with many rows of bf16 activations (a prompt's) on tensor cores.
#include "many.cuh"

// Rows of x that are met before the next outputs are begun: while weights are in the L2 cache all of a
// group's rows meet them, and the group's rows stay there.
constexpr int GROUP_ROWS = 2048;

// Outputs of the matrix that share a format; see DeviceMatrix.
struct Part {
  const unsigned char* weights;
  int format, rows;
};

struct Product {
  Part parts[3];  // without outputs where there are fewer
  int cols;
  int diagonal;  // outputs of a block on the diagonal, each with `cols` columns of x of its own; 0 without
  const bf16* x;
  int stride, n;
  Output out;
  int splits;       // of the inputs; each writes sums of its own, behind each other
  int part_blocks;  // tiles of outputs of all parts
  int stages;
};

// A block's tile: `blockIdx.x` counts tiles, the rows of a group first.
struct Position {
  Part part;
  int output;  // its first output in the part; of GATED, gates and what they gate take turns
  int column;  // the part's first output
  int row;
};

template <class S>
__device__ inline Position position(const Product& p, int block) {
  const int row_blocks = (p.n + S::ROWS - 1) / S::ROWS, most = GROUP_ROWS / S::ROWS;
  const int group = block / (most * p.part_blocks), inside = block % (most * p.part_blocks);
  const int rows_here = min(most, row_blocks - group * most);
  const int row = (group * most + inside % rows_here) * S::ROWS;
  Position at = {p.parts[0], inside / rows_here * BLOCK_OUTPUTS, 0, row};
#pragma unroll
  for (int i = 1; i < 3; i++) {
    const int padded = (at.part.rows + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * BLOCK_OUTPUTS;
    if (p.out.kind == GATED || at.output < padded) break;
    at.output -= padded, at.column += at.part.rows, at.part = p.parts[i];
  }
  return at;
}

template <class S>
__device__ inline Task task_at(const Product& p, const Position& at) {
  const bool gated = p.out.kind == GATED;
  const int groups = (p.cols + GROUP_INPUTS - 1) / GROUP_INPUTS, group_rows = (at.part.rows + 15) / 16;
  const int diagonal = p.diagonal ? (at.column + at.output) / p.diagonal * p.cols : 0;
  Task task;
  task.row_bytes = row_bytes(at.part.format, groups);
  task.weights = at.part.weights + at.output / (gated ? 32 : 16) * task.row_bytes;
  task.between = gated ? p.parts[1].weights - p.parts[0].weights : 0;
  task.groups = min(OUTPUT_GROUPS, (gated ? 2 * group_rows : group_rows) - at.output / 16);
  task.x = p.x + size_t(at.row) * p.stride + diagonal;
  task.stride = p.stride, task.rows = p.n - at.row, task.cols = p.cols;
  task.first = blockIdx.y * groups / p.splits, task.end = (blockIdx.y + 1) * groups / p.splits;
  task.stages = p.stages;
  return task;
}

// `more` comes to the product: another one with the same outputs and rows, its weights in bf16, of few
// inputs; of none where there is no other. Of splits the first one has it.
template <class S>
__device__ inline void product(const Product& p, const Product& more) {
  SHARED_DYN(unsigned char, memory);
  const Position at = position<S>(p, blockIdx.x);
  const Task task = task_at<S>(p, at);
  float sums[S::M][S::N][4] = {};
  switch (at.part.format) {
    case BF16: accumulate<S, BF16>(sums, memory, task); break;
    case Q8_0: accumulate<S, Q8_0>(sums, memory, task); break;
    case Q4_0: accumulate<S, Q4_0>(sums, memory, task); break;
    case Q4_1: accumulate<S, Q4_1>(sums, memory, task); break;
    case Q5_0: accumulate<S, Q5_0>(sums, memory, task); break;
    case Q5_1: accumulate<S, Q5_1>(sums, memory, task); break;
    case Q4_K: accumulate<S, Q4_K>(sums, memory, task); break;
    case Q5_K: accumulate<S, Q5_K>(sums, memory, task); break;
    default: accumulate<S, Q6_K>(sums, memory, task);
  }
  if (more.cols != 0 && blockIdx.y == 0)
    accumulate<S, BF16>(sums, memory, task_at<S>(more, position<S>(more, opaque(int(blockIdx.x)))));
  // Found anew, so that it takes no registers from the sums.
  const Position end = position<S>(p, opaque(int(blockIdx.x)));
  Output out = p.out;
  if (p.splits > 1) out.to = static_cast<float*>(out.to) + size_t(blockIdx.y) * p.n * out.stride;
  write<S>(sums, memory, out, {end.row, p.n - end.row, end.output, end.part.rows, end.column});
}

// The parameters of `many_*`, one kernel for each shape of a tile, named by its rows.
#define PARAMETERS                                                                                          \
  const unsigned char *weights0, int format0, int rows0, const unsigned char *weights1, int format1,        \
    int rows1, const unsigned char *weights2, int format2, int rows2, int cols, int diagonal, const bf16 *x,\
    int stride, int n, void *to, int to_stride, int kind, int columns, int vectors, const float *bias,      \
    int splits, int part_blocks, int stages, const unsigned char *more0, const unsigned char *more1,        \
    const unsigned char *more2, int more_cols, const bf16 *more_x, int more_stride, int more_stages
#define GIVEN                                                                                               \
  {                                                                                                         \
    {{weights0, format0, rows0}, {weights1, format1, rows1}, {weights2, format2, rows2}}, cols, diagonal, x,\
      stride, n, {to, to_stride, kind, columns, bool(vectors), bias}, splits, part_blocks, stages           \
  }
#define MORE                                                                                                \
  {                                                                                                         \
    {{more0, BF16, rows0}, {more1, BF16, rows1}, {more2, BF16, rows2}}, more_cols, 0, more_x, more_stride,  \
      n, {to, to_stride, kind, columns, bool(vectors), bias}, 1, part_blocks, more_stages                   \
  }

KERNEL_OF(256, 1) many_256(PARAMETERS) { product<Shape<2, 4, 4, 8>>(GIVEN, MORE); }
KERNEL_OF(128, 2) many_128(PARAMETERS) { product<Shape<2, 2, 4, 8>>(GIVEN, MORE); }
KERNEL_OF(128, 2) many_64(PARAMETERS) { product<Shape<4, 1, 2, 8>>(GIVEN, MORE); }
KERNEL_OF(128, 4) many_32(PARAMETERS) { product<Shape<4, 1, 2, 4>>(GIVEN, MORE); }

// The sums of a row's W outputs over all splits, and what becomes of them.
template <int W>
__device__ inline void sum_up(const float* sums, int splits, int width, int n, const Output& out) {
  const int pieces = out.columns / W, i = blockIdx.x * blockDim.x + threadIdx.x;
  const int row = i / pieces, col = i % pieces * W;
  if (row >= n) return;
  const bool gated = out.kind == GATED;
  float v[W] = {}, up[W] = {};
  for (int split = 0; split < splits; split++) {
    const float* from = sums + (size_t(split) * n + row) * width + col;
    add(v, from);
    if (gated) add(up, from + out.columns);
  }
  if (gated) put_gated(out, row, col, v, up);
  else put(out, row, col, v);
}

// What `many_*` have written as f32 `sums` [splits, n, width] becomes the product's output.
KERNEL_OF(256, 4) many_sum(const float* sums, int splits, int width, int n, void* to, int stride, int kind,
                           int columns, int vectors, const float* bias) {
  wait_for_launch_before();
  const Output out = {to, stride, kind, columns, bool(vectors), bias};
  if (vectors) sum_up<4>(sums, splits, width, n, out);
  else sum_up<1>(sums, splits, width, n, out);
}
