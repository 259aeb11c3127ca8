// The best tokens of a vocabulary: the BEST greatest logits of a row in order, and ln(sum(e^x)).
//
// Warps pick the best of 1,024 candidates in registers: they find the BEST-th greatest one bit by bit. A
// block's eight warps pick the best of 8,192 logits, and a block a row picks the best of all blocks'
// candidates. Candidates stay in the order of their ids, so that of equal ones the first is picked.
#include "gpu.cuh"

#define BEST 64
#define WARPS 8
#define THREADS (32 * WARPS)
// Candidates of a lane.
#define KEYS 32
#define WARP_KEYS (32 * KEYS)

// A logit as a number whose order as an integer is the logit's; the least one, 0, is no logit's.
struct Candidate { uint32_t key, id; };
#define NOBODY 0xffffffffu

__device__ inline uint32_t key_of(float logit) {
  const uint32_t bits = __float_as_uint(logit);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 1;  // NaN: below everything that is a number
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline float logit_of(uint32_t key) {
  if (key <= 1) return -INFINITY;
  return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// Picks the BEST greatest of a warp's keys, of equal ones those with the lowest (k, lane), and calls
// `take(place, k)` in their lanes; places are in the order of (k, lane).
template <class Take> __device__ inline void pick(const uint32_t (&keys)[KEYS], int lane, Take take) {
  uint32_t least = 0;  // the BEST-th greatest key, as far as its bits are known
  for (int bit = 31; bit >= 0; bit--) {
    const uint32_t tried = least | 1u << bit;
    int mine = 0;
#pragma unroll
    for (int k = 0; k < KEYS; k++) mine += keys[k] >= tried;
    const int count = warp_sum_int(mine);
    if (count >= BEST) least = tried;
    if (count == BEST) break;
  }
  int mine = 0;
#pragma unroll
  for (int k = 0; k < KEYS; k++) mine += keys[k] > least;
  const int room = BEST - warp_sum_int(mine);  // for those that are equal to it
  const uint32_t before = (1u << lane) - 1;
  int taken = 0, equals = 0;
#pragma unroll
  for (int k = 0; k < KEYS; k++) {
    const uint32_t equal = __ballot_sync(0xffffffffu, keys[k] == least);
    const bool chosen = keys[k] > least || (keys[k] == least && equals + __popc(equal & before) < room);
    const uint32_t all = __ballot_sync(0xffffffffu, chosen);
    if (chosen) take(taken + __popc(all & before), k);
    taken += __popc(all);
    equals += __popc(equal);
  }
}

// The best of `count` candidates, of which a warp takes WARP_KEYS: to `found`, in warp 0's registers' order.
// `shared` is [WARPS][BEST]; the first barrier is in here.
template <class Key, class Id, class Take>
__device__ inline void pick_in_block(int count, Key key, Id id, Candidate* shared, Take take) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t keys[KEYS];
#pragma unroll
  for (int k = 0; k < KEYS; k++) {
    const int at = warp * WARP_KEYS + 32 * k + lane;
    keys[k] = at < count ? key(at) : 0;
  }
  pick(keys, lane, [&](int place, int k) {
    const int at = warp * WARP_KEYS + 32 * k + lane;
    shared[warp * BEST + place] = Candidate{keys[k], at < count ? id(at) : NOBODY};
  });
  __syncthreads();
  if (warp != 0) return;
#pragma unroll
  for (int k = 0; k < KEYS; k++) keys[k] = 32 * k < WARPS * BEST ? shared[32 * k + lane].key : 0;
  pick(keys, lane, [&](int place, int k) {
    take(place, 32 * k < WARPS * BEST ? shared[32 * k + lane] : Candidate{0, NOBODY});
  });
}

// Greatest number, and the sum of e^(x - greatest).
struct Softmax { float greatest, sum; };
__device__ inline Softmax together(Softmax a, Softmax b) {
  const float greatest = fmaxf(a.greatest, b.greatest);
  if (greatest == -INFINITY) return Softmax{greatest, 0.f};
  return Softmax{greatest, a.sum * expf(a.greatest - greatest) + b.sum * expf(b.greatest - greatest)};
}

// The best of 8,192 logits of a row; blockIdx.y is the row. `candidates` [n][gridDim.x][BEST], `softmaxes`
// [n][gridDim.x].
KERNEL_OF(256, 2) best_of_slices(const float* logits, int vocab, Candidate* candidates, Softmax* softmaxes) {
  SHARED(Candidate, found, [WARPS * BEST]);
  SHARED(Softmax, parts, [WARPS]);
  let_next_launch_begin();
  wait_for_launch_before();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = blockIdx.x * WARPS * WARP_KEYS, count = min(WARPS * WARP_KEYS, vocab - first);
  const float* row = logits + (long long)blockIdx.y * vocab + first;
  const int to = blockIdx.y * gridDim.x + blockIdx.x;

  Softmax mine = {-INFINITY, 0.f};
  for (int at = warp * WARP_KEYS + lane; at < min(count, (warp + 1) * WARP_KEYS); at += 32)
    mine.greatest = fmaxf(mine.greatest, row[at]);
  mine.greatest = warp_max(mine.greatest);
  for (int at = warp * WARP_KEYS + lane; at < min(count, (warp + 1) * WARP_KEYS); at += 32)
    if (mine.greatest != -INFINITY) mine.sum += expf(row[at] - mine.greatest);
  mine.sum = warp_sum(mine.sum);
  if (lane == 0) parts[warp] = mine;

  pick_in_block(
    count, [&](int at) { return key_of(row[at]); }, [&](int at) { return uint32_t(first + at); }, found,
    [&](int place, Candidate one) { candidates[(long long)to * BEST + place] = one; });
  if (threadIdx.x != 0) return;
  for (int w = 1; w < WARPS; w++) mine = together(mine, parts[w]);
  softmaxes[to] = mine;
}

// The best of a row's slices, a block a row, in order: greatest first, of equal ones the lowest id.
KERNEL_OF(256, 2) best_of_rows(const Candidate* candidates, const Softmax* softmaxes, int slices,
                               unsigned* ids, float* values, float* sums) {
  SHARED(Candidate, found, [WARPS * BEST]);
  SHARED(Candidate, best, [BEST]);
  let_next_launch_begin();
  wait_for_launch_before();
  const Candidate* row = candidates + (long long)blockIdx.x * slices * BEST;
  pick_in_block(
    slices * BEST, [&](int at) { return row[at].key; }, [&](int at) { return row[at].id; }, found,
    [&](int place, Candidate one) { best[place] = one; });
  if (threadIdx.x / 32 == 1) {
    // While the first warp picks.
    const int lane = threadIdx.x % 32;
    Softmax mine = {-INFINITY, 0.f};
    for (int s = lane; s < slices; s += 32) mine = together(mine, softmaxes[blockIdx.x * slices + s]);
    const float greatest = warp_max(mine.greatest);
    const float sum = warp_sum(mine.sum == 0.f ? 0.f : mine.sum * expf(mine.greatest - greatest));
    if (lane == 0) sums[blockIdx.x] = greatest + logf(sum);
  }
  __syncthreads();
  if (threadIdx.x < BEST) {
    const Candidate mine = best[threadIdx.x];
    int better = 0;
    for (int i = 0; i < BEST; i++)
      better += best[i].key > mine.key || (best[i].key == mine.key && i < int(threadIdx.x));
    ids[blockIdx.x * BEST + better] = mine.id;
    values[blockIdx.x * BEST + better] = logit_of(mine.key);
  }
}
