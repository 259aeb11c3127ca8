// Row by row: norms, sums, activation functions, pooling.
#include "activation.cuh"
#include "norm.cuh"

namespace {

constexpr int THREADS = NORM_THREADS;
constexpr int WARPS = NORM_WARPS;

// The sum over a block of THREADS threads; every thread gets the same bits. `partial` serves one sum only.
__device__ inline float block_sum(float number, float* partial) {
  const float sum = warp_sum(number);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  return sum_of_warps(partial);
}

// Row `i`, four numbers at a time.
__device__ inline const float4* row_of(const float* rows, size_t i, int width) {
  return reinterpret_cast<const float4*>(rows + i * width);
}
__device__ inline float4* row_of(float* rows, size_t i, int width) {
  return reinterpret_cast<float4*>(rows + i * width);
}

}  // namespace

// `out = residual + y`, or `residual + rms_norm(y) * post` where there is `post`, or `residual` where there
// is no `y`; then `x = rms_norm(out) * weight`. A block takes a row, of `x` its own, of the others that plus
// `first`; a thread meets only its own numbers of the row again.
KERNEL_OF(256, 4) add_norm(const float* residual, const float* y, const float* post, float* out,
                           const float* weight, void* x, int first, int exact, int width, float eps) {
  SHARED_DYN(float4, row);
  SHARED(float, partial, [2][WARPS]);
  wait_for_launch_before();
  let_next_launch_begin();
  const int fours = width / 4;
  const int at = first + blockIdx.x;
  const float4* y_row = row_of(y, at, width);
  float scale = 1.f;
  if (post) {
    float sum_of_squares = 0.f;
    for (int i = threadIdx.x; i < fours; i += THREADS) {
      row[i] = y_row[i];
      sum_of_squares = add_squares(row[i], sum_of_squares);
    }
    scale = inverse_rms(block_sum(sum_of_squares, partial[0]), width, eps);
  }
  float sum_of_squares = 0.f;
  for (int i = threadIdx.x; i < fours; i += THREADS) {
    float4 v = row_of(residual, at, width)[i];
    if (post) {
      v = plus_normed(v, row[i], scale, reinterpret_cast<const float4*>(post)[i]);
    } else if (y) {
      v = plus(v, y_row[i]);
    }
    row[i] = v;
    row_of(out, at, width)[i] = v;
    sum_of_squares = add_squares(v, sum_of_squares);
  }
  scale = inverse_rms(block_sum(sum_of_squares, partial[1]), width, eps);
  for (int i = threadIdx.x; i < fours; i += THREADS) {
    const float4 number = normed(row[i], scale, reinterpret_cast<const float4*>(weight)[i]);
    store_four(x, size_t(blockIdx.x) * width + 4 * i, number, exact);
  }
}

// `x = rms_norm(x) * weight`, a block a row.
KERNEL_OF(256, 4) norm_in_place(float* x, const float* weight, int width, float eps) {
  SHARED(float, partial, [WARPS]);
  wait_for_launch_before();
  let_next_launch_begin();
  float4* row = row_of(x, blockIdx.x, width);
  float sum_of_squares = 0.f;
  for (int i = threadIdx.x; i < width / 4; i += THREADS) sum_of_squares = add_squares(row[i], sum_of_squares);
  const float scale = inverse_rms(block_sum(sum_of_squares, partial), width, eps);
  for (int i = threadIdx.x; i < width / 4; i += THREADS) {
    row[i] = normed(row[i], scale, reinterpret_cast<const float4*>(weight)[i]);
  }
}

// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, a block a row.
KERNEL_OF(256, 4) layer_norm(const float* x, const float* weight, const float* bias, void* out, int exact,
                             int width, float eps) {
  SHARED_DYN(float4, row);
  SHARED(float, partial, [2][WARPS]);
  wait_for_launch_before();
  let_next_launch_begin();
  const int fours = width / 4;
  float total = 0.f;
  for (int i = threadIdx.x; i < fours; i += THREADS) {
    const float4 v = row_of(x, blockIdx.x, width)[i];
    row[i] = v;
    total += v.x + v.y + (v.z + v.w);
  }
  const float mean = block_sum(total, partial[0]) / width;
  float sum_of_squares = 0.f;
  for (int i = threadIdx.x; i < fours; i += THREADS) {
    const float4 v = row[i];
    row[i] = {v.x - mean, v.y - mean, v.z - mean, v.w - mean};
    sum_of_squares = add_squares(row[i], sum_of_squares);
  }
  const float scale = inverse_rms(block_sum(sum_of_squares, partial[1]), width, eps);
  for (int i = threadIdx.x; i < fours; i += THREADS) {
    const float4 number = normed(row[i], scale, reinterpret_cast<const float4*>(weight)[i]);
    const float4 shifted = plus(number, reinterpret_cast<const float4*>(bias)[i]);
    store_four(out, size_t(blockIdx.x) * width + 4 * i, shifted, exact);
  }
}

// `x += y`
KERNEL_OF(256, 4) add_rows(float* x, const float* y, int len) {
  wait_for_launch_before();
  let_next_launch_begin();
  const int at = blockIdx.x * THREADS + threadIdx.x;
  if (at < len) x[at] += y[at];
}

// `out = x`
KERNEL_OF(256, 4) round_rows(const float* x, bf16* out, int len) {
  wait_for_launch_before();
  let_next_launch_begin();
  const int at = blockIdx.x * THREADS + threadIdx.x;
  if (at < len) out[at] = __float2bfloat16(x[at]);
}

// `out = gelu_tanh(x)`, or `gelu_tanh(x) * up` where there is `up`.
KERNEL_OF(256, 4) gelu_rows(const float* x, const float* up, void* out, int exact, int len) {
  wait_for_launch_before();
  let_next_launch_begin();
  const int at = blockIdx.x * THREADS + threadIdx.x;
  if (at >= len) return;
  const float gelu = gelu_tanh(x[at]);
  store_number(out, at, up ? gelu * up[at] : gelu, exact);
}

// Means over squares of `kernel x kernel` rows of `x [side, side, width]`; blockIdx.y is the square.
KERNEL_OF(256, 4) average_pool(const float* x, float* out, int side, int kernel, int width) {
  wait_for_launch_before();
  let_next_launch_begin();
  const int channel = blockIdx.x * THREADS + threadIdx.x;
  if (channel >= width) return;
  const int small = side / kernel;
  const int top = blockIdx.y / small * kernel, left = blockIdx.y % small * kernel;
  float total = 0.f;
  for (int i = 0; i < kernel * kernel; i++) {
    const size_t row = (top + i / kernel) * side + left + i % kernel;
    total += x[row * width + channel];
  }
  out[size_t(blockIdx.y) * width + channel] = total / (kernel * kernel);
}
