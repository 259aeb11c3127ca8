// Heads as attention over pages reads them: a pass's turned and stored, a picture's in pages of their own.
#include "attention.cuh"
#include "attention_turn.cuh"

namespace {

// One head of one row, by a warp: a query turned to `q [n, heads, padded]`, a key or a value to its page.
template <class T>
__device__ inline void turn_rows(const float* qkv, const unsigned long long* table, const int* head,
                                 const float* q_norm, const float* k_norm, Turn how, T* q, int heads,
                                 int kv_heads, int dim, int padded, int key, int value) {
  const int row = blockIdx.x, part = blockIdx.y * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (part >= heads + 2 * kv_heads) return;
  const int at = head[0] + row, position = head[1] + row;
  T* page = reinterpret_cast<T*>(table[at / PAGE - head[2]]) + at % PAGE * dim;
  wait_for_launch_before();
  let_next_launch_begin();
  const float* raw = qkv + (static_cast<size_t>(row) * (heads + 2 * kv_heads) + part) * dim;
  const int kv = part - heads;
  const bool is_query = kv < 0, is_value = kv >= kv_heads;
  if (is_value) how.rotated = 0;
  T* to = is_query   ? q + (static_cast<size_t>(row) * heads + part) * padded
          : is_value ? page + value + (kv - kv_heads) * PAGE * dim
                     : page + key + kv * PAGE * dim;
  turn(raw, is_query ? q_norm : is_value ? nullptr : k_norm, how, dim, is_query ? padded : dim, position, to);
}


// A picture's queries, keys and values as the tower's products give them: heads of a row stand together.
struct Picture {
  const float *q, *k, *v;
  int q_stride, k_stride, v_stride;  // numbers from row to row
  int queries, keys, heads, dim;

  // Row `row` of its queries (part 0), keys or values.
  __device__ const float* row(int part, int row) const {
    if (part == 0) return q + static_cast<size_t>(row) * q_stride;
    return part == 1 ? k + static_cast<size_t>(row) * k_stride : v + static_cast<size_t>(row) * v_stride;
  }
};

// Where attention over pages looks for them, and what Place would hold.
template <class T>
struct Packed {
  T* q;      // [queries, heads, padded]
  T* pages;  // [pages, keys or values, heads, 16, padded]
  unsigned long long* table;
  int* head;
  int2* ranges;  // [queries]
  int padded;
};

// One head of one query, key or value, by a warp.
template <class T>
__device__ inline void pack_rows(const Picture& from, const Packed<T>& to) {
  const int row = blockIdx.x, part = blockIdx.z, h = blockIdx.y * (blockDim.x >> 5) + (threadIdx.x >> 5);
  const size_t page_numbers = static_cast<size_t>(2) * from.heads * PAGE * to.padded;
  wait_for_launch_before();
  let_next_launch_begin();
  if (threadIdx.x == 0 && blockIdx.y == 0 && part == 0) {
    if (row < 4) to.head[row] = 0;
    if (row < from.queries) to.ranges[row] = int2{0, from.keys};
    if (row * PAGE < from.keys)
      to.table[row] = reinterpret_cast<unsigned long long>(to.pages + row * page_numbers);
  }
  if (h >= from.heads || row >= (part == 0 ? from.queries : from.keys)) return;
  T* head = part == 0
                ? to.q + (static_cast<size_t>(row) * from.heads + h) * to.padded
                : to.pages + row / PAGE * page_numbers +
                      static_cast<size_t>(((part - 1) * from.heads + h) * PAGE + row % PAGE) * to.padded;
  turn(from.row(part, row) + h * from.dim, nullptr, Turn{}, from.dim, to.padded, 0, head);
}

}  // namespace

// Grid [n, (heads + 2 kv_heads) / 4]; 128 threads.
KERNEL_OF(128, 1) attend_turn(
    const float* qkv, const unsigned long long* table, const int* head, const float* q_norm,
    const float* k_norm, const float* frequencies, f16* q, int rotated, int heads, int kv_heads, int dim,
    int padded, int key, int value, float eps) {
  const Turn how{frequencies, rotated, eps};
  turn_rows(qkv, table, head, q_norm, k_norm, how, q, heads, kv_heads, dim, padded, key, value);
}
KERNEL_OF(128, 1) attend_turn_exact(
    const float* qkv, const unsigned long long* table, const int* head, const float* q_norm,
    const float* k_norm, const float* frequencies, float* q, int rotated, int heads, int kv_heads, int dim,
    int padded, int key, int value, float eps) {
  const Turn how{frequencies, rotated, eps};
  turn_rows(qkv, table, head, q_norm, k_norm, how, q, heads, kv_heads, dim, padded, key, value);
}

// Grid [the greatest of queries, keys and 4, heads / 4, 3]; 128 threads.
KERNEL_OF(128, 1) attend_pack(
    const float* q, const float* k, const float* v, int q_stride, int k_stride, int v_stride, f16* turned,
    f16* pages, unsigned long long* table, int* head, int2* ranges, int queries, int keys, int heads, int dim,
    int padded) {
  pack_rows<f16>({q, k, v, q_stride, k_stride, v_stride, queries, keys, heads, dim},
                 {turned, pages, table, head, ranges, padded});
}
KERNEL_OF(128, 1) attend_pack_exact(
    const float* q, const float* k, const float* v, int q_stride, int k_stride, int v_stride, float* turned,
    float* pages, unsigned long long* table, int* head, int2* ranges, int queries, int keys, int heads,
    int dim, int padded) {
  pack_rows<float>({q, k, v, q_stride, k_stride, v_stride, queries, keys, heads, dim},
                   {turned, pages, table, head, ranges, padded});
}
