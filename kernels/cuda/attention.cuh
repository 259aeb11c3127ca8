// What the attention kernels share: a warp's scores and sums for 16 queries, and the joining of what several
// blocks found.
#pragma once
#include "gpu.cuh"

// Queries of a warp: the rows of one mma.
constexpr int ROWS = 16;
// Tokens in a page.
constexpr int PAGE = 16;

// Numbers between two rows in shared memory: 16 bytes more than the row, so that eight rows meet different
// banks.
template <int D>
constexpr int PITCH = D + 8;

// Keys and values of one head of one layer, in pages whose addresses are in a table.
struct Pages {
  const unsigned long long* table;
  int first;  // index of the table's first page in the sequence
  int key;    // numbers from a page's front to the head's first key
  int value;  // and to its first value
  int dim;    // numbers of a key

  __device__ f16* page(int index) const { return reinterpret_cast<f16*>(table[index - first]); }
};

// How a product of query and key becomes the exponent of 2 in the softmax: scaled, capped, times log2(e).
struct Logit {
  float inner, outer;

  __device__ Logit(float scale, float cap) {
    const float log2e = 1.44269504f;
    outer = cap > 0.f ? cap * log2e : 0.f;
    inner = cap > 0.f ? 2.f * log2e * scale / cap : scale * log2e;
  }
  // tanh(x) = 1 - 2 / (e^2x + 1): its absolute error, which is what counts in an exponent, stays at 1e-7 of
  // the cap.
  template <int N>
  __device__ void apply(float (&products)[N][4]) const {
    if (outer == 0.f) {
#pragma unroll
      for (int i = 0; i < 4 * N; i++) products[i / 4][i % 4] *= inner;
    } else {
#pragma unroll
      for (int i = 0; i < 4 * N; i++) {
        float& product = products[i / 4][i % 4];
        product = outer - __fdividef(2.f * outer, exp2_fast(product * inner) + 1.f);
      }
    }
  }
};

// What a row of a tile sees that stands for no query: all, so that it asks for no mask.
__device__ inline int2 anything() { return int2{0, 0x7fffffff}; }

// What 16 queries found in the keys so far (online softmax, Milakov and Gimelshein 2018). A lane has parts of
// rows lane / 4 and lane / 4 + 8; of `total` the part of its own columns.
template <int D>
struct Sums {
  float value[D / 8][4];
  float most[2];
  float total[2];

  __device__ Sums() : value{}, most{-INFINITY, -INFINITY}, total{0.f, 0.f} {}
};

// The fragment of 16 queries and 16 of their dimensions, from rows in shared memory.
template <int D>
__device__ inline void load_queries(const f16* queries, int part, uint32_t (&fragment)[4]) {
  const int lane = threadIdx.x & 31;
  ldmatrix_x4(fragment, queries + (lane & 15) * PITCH<D> + part * 16 + (lane >> 4) * 8);
}

// Adds the products of 16 queries and `KEYS` keys over 16 dimensions.
template <int D, int KEYS>
__device__ inline void add_products(const uint32_t (&query)[4], const f16* keys, int part,
                                    float (&s)[KEYS / 8][4]) {
  const int lane = threadIdx.x & 31;
  const f16* row = keys + ((lane & 7) + (lane >> 4) * 8) * PITCH<D> + part * 16 + (lane >> 3 & 1) * 8;
#pragma unroll
  for (int n = 0; n < KEYS / 16; n++) {
    uint32_t b[4];
    ldmatrix_x4(b, row + n * 16 * PITCH<D>);
    const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
    mma_16816_half(s[2 * n], query, low);
    mma_16816_half(s[2 * n + 1], query, high);
  }
}

// Turns products into weights: `s` becomes 2^(logit - most). `seen` are the ranges of a lane's two rows,
// `first` the position of the first key. A row that sees none of these keys keeps its sums bit by bit.
template <int D, int KEYS>
__device__ inline void weigh(Sums<D>& sums, float (&s)[KEYS / 8][4], Logit logit, const int2 (&seen)[2],
                             int first) {
  const int column = first + 2 * (threadIdx.x & 3);
  const bool whole = max(seen[0].x, seen[1].x) <= first && first + KEYS <= min(seen[0].y, seen[1].y);
  logit.apply(s);
  if (__ballot_sync(0xffffffffu, whole) != 0xffffffffu) {
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
      const int key = column + i / 4 * 8 + (i & 1);
      const int2 range = seen[i >> 1 & 1];
      if (key < range.x || key >= range.y) s[i / 4][i % 4] = -INFINITY;
    }
  }
  float most[2] = {sums.most[0], sums.most[1]};
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) most[i >> 1 & 1] = fmaxf(most[i >> 1 & 1], s[i / 4][i % 4]);
  float shrink[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffffu, most[r], 1));
    most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffffu, most[r], 2));
    const float base = most[r] == -INFINITY ? 0.f : most[r];
    shrink[r] = exp2_fast(sums.most[r] - base);
    sums.most[r] = most[r];
    sums.total[r] *= shrink[r];
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; e++) {
        s[n][e] = exp2_fast(s[n][e] - base);
        sums.total[r] += s[n][e];
      }
  }
  if (__ballot_sync(0xffffffffu, shrink[0] != 1.f || shrink[1] != 1.f) == 0) return;
#pragma unroll
  for (int n = 0; n < D / 8; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) sums.value[n][e] *= shrink[e >> 1];
}

// Adds `KEYS` values by their weights.
template <int D, int KEYS>
__device__ inline void add_values(Sums<D>& sums, const float (&s)[KEYS / 8][4], const f16* values) {
  const int lane = threadIdx.x & 31;
  const f16* row = values + (lane & 15) * PITCH<D> + (lane >> 4) * 8;
#pragma unroll
  for (int k = 0; k < KEYS / 16; k++) {
    uint32_t weights[4];
#pragma unroll
    for (int j = 0; j < 4; j++)
      weights[j] = pack_f16(s[2 * k + j / 2][j % 2 * 2], s[2 * k + j / 2][j % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, row + k * 16 * PITCH<D> + n * 16);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      mma_16816_half(sums.value[2 * n], weights, low);
      mma_16816_half(sums.value[2 * n + 1], weights, high);
    }
  }
}

// Brings the lanes' parts of the totals together.
template <int D>
__device__ inline void close(Sums<D>& sums) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    sums.total[r] += __shfl_xor_sync(0xffffffffu, sums.total[r], 1);
    sums.total[r] += __shfl_xor_sync(0xffffffffu, sums.total[r], 2);
  }
}

// Copies rows into shared memory, as thread `thread` of `threads`. `row(i)` gives row i's numbers, or null
// for zeros; there nothing is read, but the copy wants an address, `anywhere` in the device's memory. Rows
// of up to 32 numbers, those of small models for tests, may have any length.
template <int D, class Row>
__device__ inline void copy_rows(f16* to, int rows, int dim, int thread, int threads, const void* anywhere,
                                 Row row) {
  if constexpr (D <= 32) {
    for (int i = thread; i < rows * D; i += threads) {
      const f16* numbers = row(i / D);
      to[i / D * PITCH<D> + i % D] = numbers && i % D < dim ? numbers[i % D] : __float2half(0.f);
    }
  } else {
#pragma unroll 4
    for (int i = thread; i < rows * (D / 8); i += threads) {
      const int at = i % (D / 8) * 8;
      const f16* numbers = row(i / (D / 8));
      const bool there = numbers && at < dim;
      cp_async16(to + i / (D / 8) * PITCH<D> + at, there ? numbers + at : anywhere, there);
    }
  }
}

// Eight numbers of a row of the output, or as many as `left` says.
__device__ inline void put_eight(bf16* to, const float (&v)[8], int left) {
  if (left >= 8 && (reinterpret_cast<uint64_t>(to) & 15) == 0) {
    *reinterpret_cast<uint4*>(to) =
        uint4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
  } else {
#pragma unroll 1
    for (int e = 0; e < min(left, 8); e++) to[e] = __float2bfloat16(v[e]);
  }
}

// Which blocks have a part of a range of chunks that are dealt to `splits` blocks in turn: `count` of them
// from `first` on, around.
struct Dealt {
  int splits, first, count;

  __device__ Dealt(int splits, int first_chunk, int last_chunk)
      : splits(splits), first(first_chunk % splits), count(min(splits, last_chunk - first_chunk + 1)) {}
  // Chunks from the range's first to the first one of this split.
  __device__ int offset(int split) const { return split < first ? split + splits - first : split - first; }
  __device__ bool has(int split) const { return offset(split) < count; }
  // The i-th of those that have a part, in ascending order.
  __device__ int at(int i) const {
    const int around = max(0, first + count - splits);
    return i < around ? i : first + i - around;
  }
};

// Where blocks that share queries leave what they found: for each split and query the maximum and the total,
// and the values' mean in f16, rows of `D`.
struct Found {
  float2* marks;
  f16* means;
};

// The places of a unit (a tile of `queries` queries of a key head) of `units`.
template <int D>
__device__ inline Found found_at(void* scratch, int unit, int units, int splits, int queries) {
  f16* means = reinterpret_cast<f16*>(reinterpret_cast<float2*>(scratch) + units * splits * queries);
  return Found{reinterpret_cast<float2*>(scratch) + unit * splits * queries,
               means + static_cast<size_t>(unit) * splits * queries * D};
}

// Whether this block is the last of `blocks` to arrive at a counter, which is 0 before and behind. What the
// others wrote before they arrived can then be read. `told` is shared memory that nothing else uses
// meanwhile.
__device__ inline bool arrives_last(int* counter, int blocks, int* told) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    *told = atomicAdd(counter, 1) == blocks - 1;
    if (*told) *counter = 0;
  }
  __syncthreads();
  const bool last = *told;
  __threadfence();
  __syncthreads();
  return last;
}

// Joins what the splits (64 at most, two for each lane) found about `count` queries, in the order of the
// splits; `row(query)` gives a query's row of the output. `weights` has room for a float for each of
// `queries` queries and each split.
template <int D, class Row>
__device__ inline void join(Found found, Dealt dealt, int queries, int count, int dim, float* weights,
                            Row row) {
  const int lane = threadIdx.x & 31, splits = dealt.splits;
  for (int query = threadIdx.x >> 5; query < count; query += blockDim.x >> 5) {
    float most[2], total[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int split = lane + 32 * i;
      const bool here = split < splits && dealt.has(split);
      const float2 mark = here ? found.marks[split * queries + query] : float2{-INFINITY, 0.f};
      most[i] = mark.x;
      total[i] = mark.y;
    }
    const float top = warp_max(fmaxf(most[0], most[1]));
    total[0] *= exp2_fast(most[0] - top);
    total[1] *= exp2_fast(most[1] - top);
    const float all = warp_sum(total[0] + total[1]);
#pragma unroll
    for (int i = 0; i < 2; i++)
      if (lane + 32 * i < splits) weights[query * splits + lane + 32 * i] = total[i] / all;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < count * (D / 8); i += blockDim.x) {
    const int query = i / (D / 8), at = i % (D / 8) * 8;
    float sum[8] = {};
#pragma unroll 4
    for (int part = 0; part < dealt.count; part++) {
      const int split = dealt.at(part);
      const float weight = weights[query * splits + split];
      const f16* mean = found.means + (split * queries + query) * D + at;
      const uint4 eight = *reinterpret_cast<const uint4*>(mean);
      const __half2* pair = reinterpret_cast<const __half2*>(&eight);
#pragma unroll
      for (int e = 0; e < 4; e++) {
        sum[2 * e] += weight * __half2float(pair[e].x);
        sum[2 * e + 1] += weight * __half2float(pair[e].y);
      }
    }
    put_eight(row(query) + at, sum, dim - at);
  }
}
