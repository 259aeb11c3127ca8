// Attention of any number of rows over pages in f16 by flash attention (Dao 2023), 64 queries a block.
// Queries are turned and keys stored already.
//
// The queries of the heads that share a key head stand together, row by row: query i of a key head is of row
// i / (heads / kv_heads). So few rows fill a block too, and a block's queries see almost the same keys.
#include "attention.cuh"

namespace {

constexpr int WARPS = 4;
constexpr int QUERIES = WARPS * ROWS;
// Keys of a step: two pages, of which shared memory holds two sets.
constexpr int KEYS = 2 * PAGE;

struct Many {
  const f16* q;  // [n, heads, D], turned
  const unsigned long long* table;
  const int* head;     // see Place: start, position, first page, rows
  const int2* ranges;  // [n]
  int* counters;       // [kv_heads, tiles], zeros
  void* found;
  bf16* out;  // [n, heads * width]
  // `dim` numbers of a key and a value are read, `width` of a mean are written.
  int n, heads, kv_heads, dim, width, key, value, paired;
  float scale, cap;
};

// The queries of a block, and the keys that any of them sees.
struct Tile {
  int first, count;
  int from, to;

  // Blocks with the last queries, which see most, begin first. Where all blocks run at once, two on a
  // multiprocessor, the second half begins with those that see least: each multiprocessor has one of both.
  __device__ Tile(const Many& a, int group) {
    const int tiles = gridDim.y, half = (tiles + 1) / 2, i = blockIdx.y;
    first = (a.paired && i >= half ? i - half : tiles - 1 - i) * QUERIES;
    count = min(QUERIES, a.n * group - first);
    const int lane = threadIdx.x & 31;
    const int2 one = a.ranges[(first + min(lane, count - 1)) / group];
    const int2 other = a.ranges[(first + min(lane + 32, count - 1)) / group];
    from = -warp_max_int(max(-one.x, -other.x));
    to = warp_max_int(max(one.y, other.y));
  }
};

// Queries as fragments: kept in registers where there is room, else read from shared memory each time.
template <int D, bool KEPT = D <= 128>
struct Queries {
  uint32_t kept[D / 16][4];
  __device__ Queries(const f16* rows) {
#pragma unroll
    for (int part = 0; part < D / 16; part++) load_queries<D>(rows, part, kept[part]);
  }
  __device__ void load(int part, uint32_t (&fragment)[4]) const {
#pragma unroll
    for (int j = 0; j < 4; j++) fragment[j] = kept[part][j];
  }
};
template <int D>
struct Queries<D, false> {
  const f16* rows;
  __device__ Queries(const f16* rows) : rows(rows) {}
  __device__ void load(int part, uint32_t (&fragment)[4]) const { load_queries<D>(rows, part, fragment); }
};

// Brings a step's keys and values. Those that no query of the tile sees are zeros: 0 times a NaN is not 0.
template <int D>
__device__ inline void fetch(const Pages& pages, const Tile& tile, int step, f16* keys, f16* values) {
  const int first = step * KEYS, front = tile.from / PAGE, back = (tile.to - 1) / PAGE;
  const f16 *even = pages.page(max(2 * step, front)), *odd = pages.page(min(2 * step + 1, back));
  const auto row = [&](int i, int at) -> const f16* {
    const bool seen = tile.from <= first + i && first + i < tile.to;
    return seen ? (i < PAGE ? even : odd) + at + i % PAGE * pages.dim : nullptr;
  };
  const auto copy = [&](f16* to, int at) {
    const auto numbers = [&](int i) { return row(i, at); };
    copy_rows<D>(to, KEYS, pages.dim, threadIdx.x, 32 * WARPS, pages.table, numbers);
  };
  copy(keys, pages.key);
  copy(values, pages.value);
  cp_async_commit();
}

// Two rows' means, to the output if this block saw all their keys, else to where the last block joins them.
template <int D, class Row>
__device__ inline void put_means(const Sums<D>& sums, const Found& found, bool alone, int count, int width,
                                 Row row) {
  const int lane = threadIdx.x & 31, g = (threadIdx.x >> 5) * ROWS + (lane >> 2), t = lane & 3;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int query = g + 8 * r, place = blockIdx.z * QUERIES + query;
    if (query >= count) continue;
    const float inverse = sums.total[r] == 0.f ? 0.f : 1.f / sums.total[r];
    if (!alone && t == 0) found.marks[place] = float2{sums.most[r], sums.total[r]};
    bf16* out = row(query);
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      const float a = sums.value[n][2 * r] * inverse, b = sums.value[n][2 * r + 1] * inverse;
      const int at = n * 8 + 2 * t;
      if (!alone) *reinterpret_cast<uint32_t*>(found.means + place * D + at) = pack_f16(a, b);
      else if (at < width) *reinterpret_cast<uint32_t*>(out + at) = pack_bf16(a, b);
    }
  }
}

template <int D>
__device__ inline void attend_many(const Many& a) {
  constexpr int ROOM = KEYS * PITCH<D>;
  SHARED_DYN(f16, shared);  // queries; keys and values of a step; keys and values of the other step
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = a.heads / a.kv_heads, kv = blockIdx.x;
  wait_for_launch_before();
  let_next_launch_begin();
  const Tile tile(a, group);
  const Dealt dealt(gridDim.z, tile.from / KEYS, (tile.to - 1) / KEYS);
  if (!dealt.has(blockIdx.z)) return;
  const int own = kv * PAGE * a.dim, last = (tile.to - 1) / KEYS;
  const Pages pages{a.table, a.head[2], a.key + own, a.value + own, a.dim};
  f16* steps = shared + QUERIES * PITCH<D>;

  // Heads of all rows in front of a query's.
  const auto heads_before = [&](int i) {
    const int query = tile.first + i;
    return static_cast<size_t>(query / group * a.heads + kv * group + query % group);
  };
  copy_rows<D>(shared, QUERIES, D, threadIdx.x, 32 * WARPS, a.q,
               [&](int i) -> const f16* { return i < tile.count ? a.q + heads_before(i) * D : nullptr; });
  cp_async_commit();
  int step = tile.from / KEYS + dealt.offset(blockIdx.z), turn = 0;
  fetch<D>(pages, tile, step, steps, steps + ROOM);
  cp_async_wait<1>();
  __syncthreads();
  const Queries<D> queries(shared + warp * ROWS * PITCH<D>);
  int2 seen[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int query = warp * ROWS + (lane >> 2) + 8 * r;
    seen[r] = query < tile.count ? a.ranges[(tile.first + query) / group] : anything();
  }

  const Logit logit(a.scale, a.cap);
  Sums<D> sums;
  for (; step <= last; step += dealt.splits, turn ^= 1) {
    const f16 *keys = steps + turn * 2 * ROOM, *values = keys + ROOM;
    f16* other = steps + (turn ^ 1) * 2 * ROOM;
    if (step + dealt.splits <= last) fetch<D>(pages, tile, step + dealt.splits, other, other + ROOM);
    else cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    float s[KEYS / 8][4] = {};
#pragma unroll
    for (int part = 0; part < D / 16; part++) {
      uint32_t query[4];
      queries.load(part, query);
      add_products<D, KEYS>(query, keys, part, s);
    }
    weigh<D, KEYS>(sums, s, logit, seen, step * KEYS);
    add_values<D, KEYS>(sums, s, values);
    __syncthreads();
  }
  cp_async_wait<0>();
  close(sums);

  const auto row = [&](int i) { return a.out + heads_before(i) * a.width; };
  const int unit = kv * gridDim.y + blockIdx.y, units = gridDim.x * gridDim.y;
  const Found found = found_at<D>(a.found, unit, units, dealt.splits, QUERIES);
  put_means<D>(sums, found, dealt.count == 1, tile.count, a.width, row);
  int* told = reinterpret_cast<int*>(shared);
  if (dealt.count == 1 || !arrives_last(a.counters + unit, dealt.count, told)) return;
  join<D>(found, dealt, QUERIES, tile.count, a.width, reinterpret_cast<float*>(steps), row);
}

}  // namespace

#define MANY_PARAMETERS                                                                                      \
  const f16 *q, const unsigned long long *table, const int *head, const int2 *ranges, int *counters,         \
      void *found, bf16 *out, int n, int heads, int kv_heads, int dim, int width, int key, int value,        \
      int paired, float scale, float cap
#define MANY_ARGUMENTS                                                                                       \
  Many{q, table, head, ranges, counters, found, out, n, heads, kv_heads, dim, width, key, value, paired,     \
       scale, cap}

// Grid [kv_heads, tiles of 64 queries, splits of the keys]; 128 threads. `found` as found_at has it.
KERNEL_OF(128, 2) attend_many_32(MANY_PARAMETERS) { attend_many<32>(MANY_ARGUMENTS); }
KERNEL_OF(128, 2) attend_many_80(MANY_PARAMETERS) { attend_many<80>(MANY_ARGUMENTS); }
KERNEL_OF(128, 2) attend_many_128(MANY_PARAMETERS) { attend_many<128>(MANY_ARGUMENTS); }
KERNEL_OF(128, 2) attend_many_256(MANY_PARAMETERS) { attend_many<256>(MANY_ARGUMENTS); }
