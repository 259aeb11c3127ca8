// Attention of up to 16 rows over pages in f16, in one launch: norms, rotation, store of the new keys and values, and
// the keys dealt to blocks, the last of which joins what they found.
//
// The page at index p is dealt by chunks of 2^chunk pages: chunk c to block c % splits, and there page after page to the
// warps in turn. So which warp adds what depends on absolute positions alone, and a row's bits not on the rows beside it.
#include "attention.cuh"
#include "attention_turn.cuh"

struct Few {
  const float* qkv;  // [n, (heads + 2 kv_heads) * dim]
  const unsigned long long* table;
  const int* head;     // see Place: start, position, first page, rows
  const int2* ranges;  // [n]
  const float *q_norm, *k_norm, *frequencies;
  int* counters;  // [kv_heads, tiles], zeros
  void* found;
  bf16* out;  // [n, heads * dim]
  int n, heads, kv_heads, dim, rotated, key, value, chunk;
  float eps, scale, cap;
};

// The queries of a block, and the keys that any of them sees.
struct Tile {
  int first, count;  // queries of the key head; query i is of row i / group
  int from, to;      // keys

  __device__ Tile(const Few& a, int group) {
    first = blockIdx.y * ROWS;
    count = min(ROWS, a.n * group - first);
    const int2 range = a.ranges[(first + min(static_cast<int>(threadIdx.x & 15), count - 1)) / group];
    from = -warp_max_int(-range.x);
    to = warp_max_int(range.y);
  }
};

// The pages of a warp: the j-th page of its block is the ((j >> chunk) * splits + split)-th chunk's; every `warps`-th is its own.
struct Walk {
  int chunk, splits, split, j;

  __device__ Walk(int chunk, Dealt dealt, int split, int first_page) : chunk(chunk), splits(dealt.splits), split(split) {
    const int offset = dealt.offset(split), warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    const int start = ((first_page >> chunk) + offset) / splits << chunk;
    const int begin = start + (offset == 0 ? first_page & ((1 << chunk) - 1) : 0);
    j = begin + (warp - begin % warps + warps) % warps;
  }
  __device__ int page() const { return (((j >> chunk) * splits + split) << chunk) + (j & ((1 << chunk) - 1)); }
  __device__ void next() { j += blockDim.x >> 5; }
};

// The new keys of this block's share, turned, and stored if the tile has the first query of their row.
template <int D>
struct Fresh {
  f16* keys;  // [16, PITCH]: of new row r in row r
  f16* values;
  int start;     // position of the first new key
  int from, to;  // positions of the new keys that the tile sees

  // Brings those of a page to their places among the page's keys or values.
  __device__ void fill(f16* page_rows, const f16* turned, int page) const {
    const int lane = threadIdx.x & 31;
    for (int key = max(from, page * PAGE); key < min(page * PAGE + PAGE, to); key++)
      for (int at = lane * 8; at < D; at += 256)
        *reinterpret_cast<uint4*>(page_rows + (key - page * PAGE) * PITCH<D> + at) =
            *reinterpret_cast<const uint4*>(turned + (key - start) * PITCH<D> + at);
  }
};

// Turns the tile's queries and the new keys that this block meets, an item a warp at a time.
template <int D>
__device__ inline void turn_all(const Few& a, const Tile& tile, const Fresh<D>& fresh, int position, Dealt dealt,
                                f16* queries) {
  const int warp = threadIdx.x >> 5, warps = blockDim.x >> 5, kv = blockIdx.z, group = a.heads / a.kv_heads;
  const int width = (a.heads + 2 * a.kv_heads) * a.dim, new_keys = max(0, fresh.to - fresh.start);
  const Turn how{a.frequencies, a.rotated, a.eps};
  for (int i = warp; i < ROWS + new_keys; i += warps) {
    if (i < ROWS) {
      f16* to = queries + i * PITCH<D>;
      const int row = (tile.first + i) / group, head = kv * group + (tile.first + i) % group;
      if (i < tile.count) turn(a.qkv + row * width + head * a.dim, a.q_norm, how, a.dim, D, position + row, to);
      else turn_value(a.qkv, 0, D, to);
      continue;
    }
    const int row = i - ROWS, page = (fresh.start + row) / PAGE;
    if (fresh.start + row < fresh.from || (page >> a.chunk) % dealt.splits != static_cast<int>(blockIdx.x)) continue;
    const float* raw = a.qkv + row * width + (a.heads + kv) * a.dim;
    turn(raw, a.k_norm, how, a.dim, D, position + row, fresh.keys + row * PITCH<D>);
    turn_value(raw + a.kv_heads * a.dim, a.dim, D, fresh.values + row * PITCH<D>);
    // A row sees itself, so the tile with its first query has this key in its share.
    if (row * group / ROWS != static_cast<int>(blockIdx.y)) continue;
    __syncwarp();
    f16* stored = reinterpret_cast<f16*>(a.table[page - a.head[2]]) + (fresh.start + row) % PAGE * a.dim;
    for (int at = threadIdx.x & 31; at < a.dim; at += 32) {
      stored[a.key + kv * PAGE * a.dim + at] = fresh.keys[row * PITCH<D> + at];
      stored[a.value + kv * PAGE * a.dim + at] = fresh.values[row * PITCH<D> + at];
    }
  }
}

// What the warps of a block found, in shared memory.
template <int D>
struct Parts {
  float2* marks;  // [warps, 16]: maximum and total
  float* sums;    // [warps, 16, PITCH]

  __device__ void put(const Sums<D>& found, int count) const {
    const int warp = threadIdx.x >> 5, g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int row = warp * ROWS + g + 8 * r;
      if (g + 8 * r >= count) continue;
#pragma unroll
      for (int n = 0; n < D / 8; n++)
        *reinterpret_cast<float2*>(sums + row * PITCH<D> + n * 8 + 2 * t) =
            float2{found.value[n][2 * r], found.value[n][2 * r + 1]};
      if (t == 0) marks[row] = float2{found.most[r], found.total[r]};
    }
  }

  // Eight numbers of a query's mean, summed in the order of the warps, and its maximum and total.
  __device__ float2 mean(int query, int at, float (&mean)[8]) const {
    const int warps = blockDim.x >> 5;
    float top = -INFINITY, total = 0.f;
    for (int w = 0; w < warps; w++) top = fmaxf(top, marks[w * ROWS + query].x);
    for (int w = 0; w < warps; w++) {
      const float2 mark = marks[w * ROWS + query];
      const float weight = mark.y == 0.f ? 0.f : exp2_fast(mark.x - top);
      total += mark.y * weight;
#pragma unroll
      for (int e = 0; e < 8; e++) mean[e] += weight * sums[(w * ROWS + query) * PITCH<D> + at + e];
    }
#pragma unroll
    for (int e = 0; e < 8; e++) mean[e] = total == 0.f ? 0.f : mean[e] / total;
    return float2{top, total};
  }
};

// Writes a block's means to the output if it is alone, else to the others', of which the last joins all. Either way they
// are rounded to f16, so that a row's bits do not depend on whether the rows beside it see more.
template <int D>
__device__ inline void finish(const Few& a, const Tile& tile, Dealt dealt, const Parts<D>& parts) {
  const int group = a.heads / a.kv_heads, unit = blockIdx.z * gridDim.y + blockIdx.y, units = gridDim.z * gridDim.y;
  const Found found = found_at<D>(a.found, unit, units, dealt.splits, ROWS);
  const auto row = [&](int query) {
    const int of_head = tile.first + query;
    return a.out + (of_head / group * a.heads + blockIdx.z * group + of_head % group) * a.dim;
  };
  for (int i = threadIdx.x; i < tile.count * (D / 8); i += blockDim.x) {
    const int query = i / (D / 8), at = i % (D / 8) * 8;
    float mean[8] = {};
    const float2 mark = parts.mean(query, at, mean);
    if (dealt.count == 1) {
#pragma unroll
      for (int e = 0; e < 8; e++) mean[e] = __half2float(__float2half(mean[e]));
      put_eight(row(query) + at, mean, a.dim - at);
      continue;
    }
    const int place = blockIdx.x * ROWS + query;
    *reinterpret_cast<uint4*>(found.means + place * D + at) =
        uint4{pack_f16(mean[0], mean[1]), pack_f16(mean[2], mean[3]), pack_f16(mean[4], mean[5]), pack_f16(mean[6], mean[7])};
    if (at == 0) found.marks[place] = mark;
  }
  if (dealt.count == 1 || !arrives_last(a.counters + unit, dealt.count, reinterpret_cast<int*>(parts.marks))) return;
  join<D>(found, dealt, ROWS, tile.count, a.dim, parts.sums, row);
}

template <int D>
__device__ inline void attend_few(const Few& a) {
  constexpr int ROOM = ROWS * PITCH<D>;
  SHARED_DYN(f16, shared);  // queries, new keys, new values, then each warp's page: keys, values
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = a.heads / a.kv_heads;
  const Tile tile(a, group);
  const int first_page = tile.from / PAGE, last_page = (tile.to - 1) / PAGE;
  const Dealt dealt(gridDim.x, first_page >> a.chunk, last_page >> a.chunk);
  if (!dealt.has(blockIdx.x)) return;

  const Fresh<D> fresh{shared + ROOM, shared + 2 * ROOM, a.head[0], max(a.head[0], tile.from), tile.to};
  const int own = blockIdx.z * PAGE * a.dim;
  const Pages pages{a.table, a.head[2], a.key + own, a.value + own, a.dim};
  f16 *keys = shared + (3 + 2 * warp) * ROOM, *values = keys + ROOM;
  Walk walk(a.chunk, dealt, blockIdx.x, first_page);
  const auto address = [&] { return walk.page() <= last_page ? pages.page(walk.page()) : nullptr; };
  // Brings the old keys or values of the walk's page; the others are zeros, for a weight of 0 must meet a number.
  const auto fetch = [&](f16* to, const f16* numbers) {
    const int first = walk.page() * PAGE, end = min(tile.to, fresh.start);
    if (first <= last_page * PAGE)
      copy_rows<D>(to, PAGE, a.dim, lane, 32, [&](int slot) -> const f16* {
        return tile.from <= first + slot && first + slot < end ? numbers + slot * a.dim : nullptr;
      });
    cp_async_commit();
  };
  // Old keys are of earlier passes; between passes the host writes to the device, which no launch overtakes.
  const f16* ahead = address();
  fetch(keys, ahead + pages.key);
  fetch(values, ahead + pages.value);
  wait_for_launch_before();
  let_next_launch_begin();
  turn_all<D>(a, tile, fresh, a.head[1], dealt, shared);
  __syncthreads();

  int2 seen[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int query = (lane >> 2) + 8 * r;
    seen[r] = query < tile.count ? a.ranges[(tile.first + query) / group] : anything();
  }
  const Logit logit(a.scale, a.cap);
  Sums<D> sums;
  for (int page = walk.page(); page <= last_page;) {
    walk.next();
    ahead = address();
    cp_async_wait<1>();
    __syncwarp();
    fresh.fill(keys, fresh.keys, page);
    __syncwarp();
    float s[PAGE / 8][4] = {};
#pragma unroll
    for (int part = 0; part < D / 16; part++) {
      uint32_t query[4];
      load_queries<D>(shared, part, query);
      add_products<D, PAGE>(query, keys, part, s);
    }
    __syncwarp();
    fetch(keys, ahead + pages.key);
    weigh<D, PAGE>(sums, s, logit, seen, page * PAGE);
    cp_async_wait<1>();
    __syncwarp();
    fresh.fill(values, fresh.values, page);
    __syncwarp();
    add_values<D, PAGE>(sums, s, values);
    __syncwarp();
    fetch(values, ahead + pages.value);
    page = walk.page();
  }
  cp_async_wait<0>();
  close(sums);
  __syncthreads();
  const Parts<D> parts{reinterpret_cast<float2*>(shared), reinterpret_cast<float*>(shared + 3 * ROOM)};
  parts.put(sums, tile.count);
  __syncthreads();
  finish<D>(a, tile, dealt, parts);
}

#define FEW_PARAMETERS                                                                                          \
  const float *qkv, const unsigned long long *table, const int *head, const int2 *ranges, const float *q_norm,  \
      const float *k_norm, const float *frequencies, int *counters, void *found, bf16 *out, int n, int heads,   \
      int kv_heads, int dim, int rotated, int key, int value, int chunk, float eps, float scale, float cap
#define FEW_ARGUMENTS                                                                                           \
  Few{qkv, table, head, ranges, q_norm, k_norm, frequencies, counters, found, out, n, heads, kv_heads, dim,     \
      rotated, key, value, chunk, eps, scale, cap}

// Grid [splits, tiles of 16 queries, kv_heads]; 32 threads a warp, 4 or 8 warps. `found` as found_at has it.
KERNEL_OF(256, 1) attend_few_32(FEW_PARAMETERS) { attend_few<32>(FEW_ARGUMENTS); }
KERNEL_OF(256, 1) attend_few_64(FEW_PARAMETERS) { attend_few<64>(FEW_ARGUMENTS); }
KERNEL_OF(256, 1) attend_few_128(FEW_PARAMETERS) { attend_few<128>(FEW_ARGUMENTS); }
KERNEL_OF(256, 1) attend_few_256(FEW_PARAMETERS) { attend_few<256>(FEW_ARGUMENTS); }
