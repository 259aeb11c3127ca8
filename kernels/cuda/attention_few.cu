// Attention of up to 16 rows over pages in f16, in one launch: norms, rotation, the store of new keys and
// values, and the keys dealt to blocks, the last of which joins what they found.
//
// Pages are dealt by chunks of 2^chunk: chunk c to block c % splits, in a block page after page to the warps.
// What a warp adds up depends on absolute positions alone, and a row's bits not on the rows beside it.
#include "attention.cuh"
#include "attention_turn.cuh"

namespace {

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

// The pages of a warp: the block's j-th is in the (j >> chunk)-th of its chunks; a warp has each `warps`-th.
struct Walk {
  int chunk, splits, split, j;

  __device__ Walk(int chunk, Dealt dealt, int first_page)
      : chunk(chunk), splits(dealt.splits), split(blockIdx.x) {
    const int offset = dealt.offset(split), warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    const int whole = ((first_page >> chunk) + offset) / splits << chunk;
    const int begin = whole + (offset == 0 ? first_page & ((1 << chunk) - 1) : 0);
    j = begin + (warp - begin % warps + warps) % warps;
  }
  __device__ int page() const {
    return (((j >> chunk) * splits + split) << chunk) + (j & ((1 << chunk) - 1));
  }
  __device__ void next() { j += blockDim.x >> 5; }
};

// The new keys and values of this block's share, turned: row r's in row r.
template <int D>
struct Fresh {
  f16 *keys, *values;  // [16, PITCH]
  int start;           // position of the first new key
  int from, to;        // positions of the new keys that the tile sees

  // Brings those of a page to their places among its keys or values.
  __device__ void fill(f16* page_rows, const f16* turned, int page) const {
    const int lane = threadIdx.x & 31;
    for (int key = max(from, page * PAGE); key < min(page * PAGE + PAGE, to); key++)
      for (int at = lane * 8; at < D; at += 256)
        *reinterpret_cast<uint4*>(page_rows + (key - page * PAGE) * PITCH<D> + at) =
            *reinterpret_cast<const uint4*>(turned + (key - start) * PITCH<D> + at);
  }
};

// Stores a turned key or value if the tile has its row's first query: a row sees itself, so one block does.
template <int D>
__device__ inline void store(const Few& a, const f16* turned, int row, int position, int first_number) {
  const int lane = threadIdx.x & 31, group = a.heads / a.kv_heads;
  if (row * group / ROWS != static_cast<int>(blockIdx.y)) return;
  __syncwarp();
  f16* page = reinterpret_cast<f16*>(a.table[position / PAGE - a.head[2]]) + first_number;
  f16* stored = page + (static_cast<int>(blockIdx.z) * PAGE + position % PAGE) * a.dim;
#pragma unroll 2
  for (int at = lane; at < a.dim; at += 32) stored[at] = turned[at];
}

// Turns the tile's queries and brings the new keys and values that this block meets, one a warp at a time.
template <int D>
__device__ inline void turn_all(const Few& a, const Tile& tile, const Fresh<D>& fresh, f16* queries) {
  const int warp = threadIdx.x >> 5, warps = blockDim.x >> 5, kv = blockIdx.z, group = a.heads / a.kv_heads;
  const int new_keys = max(0, fresh.to - fresh.start);
  for (int i = warp; i < tile.count + 2 * new_keys; i += warps) {
    const bool is_query = i < tile.count, is_value = i >= tile.count + new_keys;
    const int query = tile.first + i, new_one = i - tile.count - (is_value ? new_keys : 0);
    const int row = is_query ? query / group : new_one, position = fresh.start + row;
    const int block = (position / PAGE >> a.chunk) % static_cast<int>(gridDim.x);
    if (!is_query && (position < fresh.from || block != static_cast<int>(blockIdx.x))) continue;
    const int head = is_query ? kv * group + query % group : a.heads + (is_value ? a.kv_heads : 0) + kv;
    f16* to = is_query ? queries + i * PITCH<D> : (is_value ? fresh.values : fresh.keys) + row * PITCH<D>;
    const float* norm = is_query ? a.q_norm : is_value ? nullptr : a.k_norm;
    const Turn how{a.frequencies, is_value ? 0 : a.rotated, a.eps};
    const float* raw = a.qkv + (row * (a.heads + 2 * a.kv_heads) + head) * a.dim;
    turn(raw, norm, how, a.dim, D, a.head[1] + row, to);
    if (!is_query) store<D>(a, to, row, position, is_value ? a.value : a.key);
  }
#pragma unroll 1
  for (int i = tile.count * PITCH<D> + threadIdx.x; i < ROWS * PITCH<D>; i += blockDim.x)
    put(queries + i, 0.f);
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
#pragma unroll 2
    for (int w = 0; w < warps; w++) top = fmaxf(top, marks[w * ROWS + query].x);
#pragma unroll 2
    for (int w = 0; w < warps; w++) {
      const float2 mark = marks[w * ROWS + query];
      const float weight = mark.y == 0.f ? 0.f : exp2_fast(mark.x - top);
      total += mark.y * weight;
      const float4* part = reinterpret_cast<const float4*>(sums + (w * ROWS + query) * PITCH<D> + at);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float4 four = part[half];
        mean[4 * half] += weight * four.x;
        mean[4 * half + 1] += weight * four.y;
        mean[4 * half + 2] += weight * four.z;
        mean[4 * half + 3] += weight * four.w;
      }
    }
#pragma unroll
    for (int e = 0; e < 8; e++) mean[e] = total == 0.f ? 0.f : mean[e] / total;
    return float2{top, total};
  }
};

// Writes a block's means to the output if it is alone, else beside the others', which the last block joins.
// Either way they are rounded to f16: a row's bits do not depend on whether the rows beside it see more.
template <int D>
__device__ inline void finish(const Few& a, const Tile& tile, Dealt dealt, const Parts<D>& parts) {
  const int group = a.heads / a.kv_heads;
  const int unit = blockIdx.z * gridDim.y + blockIdx.y, units = gridDim.z * gridDim.y;
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
    uint32_t pairs[4];
#pragma unroll
    for (int e = 0; e < 4; e++) pairs[e] = pack_f16(mean[2 * e], mean[2 * e + 1]);
    *reinterpret_cast<uint4*>(found.means + place * D + at) = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
    if (at == 0) found.marks[place] = mark;
  }
  int* told = reinterpret_cast<int*>(parts.marks);
  if (dealt.count == 1 || !arrives_last(a.counters + unit, dealt.count, told)) return;
  join<D>(found, dealt, ROWS, tile.count, a.dim, parts.sums, row);
}

// Where a warp reads from and to.
template <int D>
struct Reader {
  Pages pages;
  int from, to, last_page;  // the keys to read, and the tile's last page
  f16 *keys, *values;       // room for a page of each

  __device__ const f16* address(int page) const { return page <= last_page ? pages.page(page) : nullptr; }

  // Brings a page's old keys or values. The others are zeros, for a weight of 0 must meet a number.
  __device__ void fetch(f16* room, const f16* numbers, int page) const {
    const int first = page * PAGE;
    if (page <= last_page)
      copy_rows<D>(room, PAGE, pages.dim, threadIdx.x & 31, 32, pages.table, [&](int slot) -> const f16* {
        return from <= first + slot && first + slot < to ? numbers + slot * pages.dim : nullptr;
      });
    cp_async_commit();
  }
};

// What the 16 queries find in the pages of a warp's walk, of which the first is under way.
template <int D>
__device__ inline void add_pages(Sums<D>& sums, const Reader<D>& reader, const Fresh<D>& fresh, Walk walk,
                                 const f16* queries, Logit logit, const int2 (&seen)[2]) {
  for (int page = walk.page(); page <= reader.last_page; page = walk.page()) {
    walk.next();
    const f16* ahead = reader.address(walk.page());
    cp_async_wait<1>();
    __syncwarp();
    fresh.fill(reader.keys, fresh.keys, page);
    __syncwarp();
    // Two sums, for each product waits for the one before it in its own.
    float s[PAGE / 8][4] = {}, odd[PAGE / 8][4] = {};
#pragma unroll
    for (int part = 0; part < D / 16; part++) {
      uint32_t query[4];
      load_queries<D>(queries, part, query);
      add_products<D, PAGE>(query, reader.keys, part, part % 2 ? odd : s);
    }
#pragma unroll
    for (int i = 0; i < PAGE / 2; i++) s[i / 4][i % 4] += odd[i / 4][i % 4];
    __syncwarp();
    reader.fetch(reader.keys, ahead + reader.pages.key, walk.page());
    weigh<D, PAGE>(sums, s, logit, seen, page * PAGE);
    cp_async_wait<1>();
    __syncwarp();
    fresh.fill(reader.values, fresh.values, page);
    __syncwarp();
    add_values<D, PAGE>(sums, s, reader.values);
    __syncwarp();
    reader.fetch(reader.values, ahead + reader.pages.value, walk.page());
  }
  cp_async_wait<0>();
}

template <int D>
__device__ inline void attend_few(const Few& a) {
  constexpr int ROOM = ROWS * PITCH<D>;
  SHARED_DYN(f16, shared);  // queries, new keys, new values, then each warp's page: keys, values
  const int lane = threadIdx.x & 31, group = a.heads / a.kv_heads, start = a.head[0];
  const Tile tile(a, group);
  const int first_page = tile.from / PAGE, last_page = (tile.to - 1) / PAGE;
  const Dealt dealt(gridDim.x, first_page >> a.chunk, last_page >> a.chunk);
  if (!dealt.has(blockIdx.x)) return;

  const Fresh<D> fresh{shared + ROOM, shared + 2 * ROOM, start, max(start, tile.from), tile.to};
  const int own = blockIdx.z * PAGE * a.dim;
  const Pages pages{a.table, a.head[2], a.key + own, a.value + own, a.dim};
  f16* room = shared + (3 + 2 * (threadIdx.x >> 5)) * ROOM;
  const Reader<D> reader{pages, tile.from, min(tile.to, start), last_page, room, room + ROOM};
  const Walk walk(a.chunk, dealt, first_page);
  // Old keys are of earlier passes: between two passes the host writes to Place, which no launch overtakes.
  const f16* page = reader.address(walk.page());
  reader.fetch(reader.keys, page + pages.key, walk.page());
  reader.fetch(reader.values, page + pages.value, walk.page());
  wait_for_launch_before();
  let_next_launch_begin();
  turn_all<D>(a, tile, fresh, shared);
  __syncthreads();

  int2 seen[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int query = (lane >> 2) + 8 * r;
    seen[r] = query < tile.count ? a.ranges[(tile.first + query) / group] : anything();
  }
  Sums<D> sums;
  add_pages<D>(sums, reader, fresh, walk, shared, Logit(a.scale, a.cap), seen);
  close(sums);
  __syncthreads();
  const Parts<D> parts{reinterpret_cast<float2*>(shared), reinterpret_cast<float*>(shared + 3 * ROOM)};
  parts.put(sums, tile.count);
  __syncthreads();
  finish<D>(a, tile, dealt, parts);
}

}  // namespace

#define FEW_PARAMETERS                                                                                       \
  const float *qkv, const unsigned long long *table, const int *head, const int2 *ranges,                    \
      const float *q_norm, const float *k_norm, const float *frequencies, int *counters, void *found,        \
      bf16 *out, int n, int heads, int kv_heads, int dim, int rotated, int key, int value, int chunk,        \
      float eps, float scale, float cap
#define FEW_ARGUMENTS                                                                                        \
  Few{qkv, table, head, ranges, q_norm, k_norm, frequencies, counters, found, out, n, heads, kv_heads, dim,  \
      rotated, key, value, chunk, eps, scale, cap}

// Grid [splits, tiles of 16 queries, kv_heads]; 32 threads a warp, 4 or 8 warps. `found` as found_at has it.
KERNEL_OF(256, 1) attend_few_32(FEW_PARAMETERS) { attend_few<32>(FEW_ARGUMENTS); }
KERNEL_OF(256, 1) attend_few_128(FEW_PARAMETERS) { attend_few<128>(FEW_ARGUMENTS); }
KERNEL_OF(256, 1) attend_few_256(FEW_PARAMETERS) { attend_few<256>(FEW_ARGUMENTS); }
