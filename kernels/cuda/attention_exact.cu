// Attention in f32, with nothing rounded but by each operation itself: what is held against golden data.
#include "attention.cuh"

constexpr int THREADS = 128;
// Keys of a step: a thread has the weight of one.
constexpr int STEP = THREADS;

// Grid [n, heads]; 128 threads; shared memory for 2 dim + 256 floats. `q [n, heads, dim]` is turned.
KERNEL_OF(THREADS, 1) attend_exact(
    const float* q, const unsigned long long* table, const int* head, const int2* ranges, float* out,
    int heads, int kv_heads, int dim, int key, int value, float scale, float cap) {
  SHARED_DYN(float, shared);
  float *query = shared, *sums = query + dim, *scores = sums + dim, *weights = scores + STEP;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  wait_for_launch_before();
  let_next_launch_begin();
  const int2 seen = ranges[blockIdx.x];
  const size_t at = (static_cast<size_t>(blockIdx.x) * heads + blockIdx.y) * dim;
  const int own = static_cast<int>(blockIdx.y) / (heads / kv_heads) * PAGE * dim, first_page = head[2];
  const auto numbers = [&](int position, int part) {
    const float* page = reinterpret_cast<const float*>(table[position / PAGE - first_page]);
    return page + part + own + position % PAGE * dim;
  };
  for (int i = threadIdx.x; i < dim; i += THREADS) {
    query[i] = q[at + i];
    sums[i] = 0.f;
  }
  __syncthreads();
  float most = -INFINITY, total = 0.f;
  for (int first = seen.x; first < seen.y; first += STEP) {
    const int count = min(STEP, seen.y - first);
    for (int t = warp; t < count; t += THREADS / 32) {
      const float* k = numbers(first + t, key);
      float product = 0.f;
      for (int i = lane; i < dim; i += 32) product += query[i] * k[i];
      product = warp_sum(product) * scale;
      if (lane == 0) scores[t] = cap > 0.f ? cap * tanhf(product / cap) : product;
    }
    __syncthreads();
    float top = most;
    for (int t = lane; t < count; t += 32) top = fmaxf(top, scores[t]);
    top = warp_max(top);
    const float shrink = expf(most - top);
    most = top;
    if (threadIdx.x < count) weights[threadIdx.x] = expf(scores[threadIdx.x] - most);
    __syncthreads();
    total *= shrink;
    for (int t = 0; t < count; t++) total += weights[t];
    for (int i = threadIdx.x; i < dim; i += THREADS) {
      float sum = sums[i] * shrink;
      for (int t = 0; t < count; t++) sum += weights[t] * numbers(first + t, value)[i];
      sums[i] = sum;
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < dim; i += THREADS) out[at + i] = sums[i] / total;
}
