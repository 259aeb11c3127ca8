// Products of few rows: how weights come to the warps.
#pragma once
#include "few_work.cuh"

// Where a warp is on its way through all steps that it takes, for one of its lanes.
struct Walk {
  const unsigned char* from;  // the lane's first 16 bytes of the step
  int body, head;             // bytes of a group and of a head
  int groups_a_step, group;
  int job, r;

  __device__ void begin(const Work& w, const Part* parts, int warp, int lane) {
    job = blockIdx.x, r = 0;
    begin_row(w, parts, warp, lane);
  }
  __device__ bool done(const Work& w) const { return job >= jobs_of(w); }
  // The next row of groups, from this one on, that has a step for this warp.
  __device__ void begin_row(const Work& w, const Part* parts, int warp, int lane) {
    for (; !done(w); next_row(w)) {
      const Part& part = part_of(w, parts, job, r);
      groups_a_step = part.groups_a_step;
      group = warp * groups_a_step;
      if (group >= groups_of(w)) continue;
      body = part.body, head = part.head;
      from = part.at + (job - part.first_job) * part.row_bytes + 16 * lane;
      from += group * body + group / HEAD_GROUPS * head;
      return;
    }
  }
  __device__ void next_row(const Work& w) {
    if (++r > w.gate_up) r = 0, job += gridDim.x;
  }
  __device__ void next(const Work& w, const Part* parts, int warp, int lane) {
    group += WARPS * groups_a_step;
    from += WARPS * (groups_a_step * body + head);
    if (group < groups_of(w)) return;
    next_row(w);
    begin_row(w, parts, warp, lane);
  }
};

// Copies a lane's 16 of every 512 of `bytes`, which are the same in every lane and 4,096 at most.
__device__ inline void copy_lanes(unsigned char* to, const unsigned char* from, int bytes, int lane) {
  const int mine = bytes - 16 * lane;
#pragma unroll
  for (int at = 0; at < 2560; at += 512)
    if (at < mine) cp_async16(to + at, from + at, true);
  if (bytes <= 2560) return;
#pragma unroll
  for (int at = 2560; at < 4096; at += 512)
    if (at < mine) cp_async16(to + at, from + at, true);
}

// A warp's ring: steps, each with its head and, unless all activations are in shared memory, its slices of
// these.
template <bool EXACT> struct Ring {
  const Part* parts;
  unsigned char* memory;
  int slot, lane, warp;
  int first, n;  // rows of activations
  Walk ahead;

  __device__ void copy_weights(const Work& w, int to_slot, const Walk& at) {
    if (at.done(w)) return;
    const int bytes = min(at.groups_a_step, groups_of(w) - at.group) * at.body + at.head;
    copy_lanes(memory + to_slot * w.stage_bytes + 16 * lane, at.from, bytes, lane);
  }
  __device__ void copy_activations(const Work& w, int to_slot, const Walk& at) {
    if (w.staged || at.done(w)) return;
    typedef Slice<EXACT> S;
    const int chunks = at.groups_a_step * S::CHUNKS, shift = chunks == 16 ? 4 : chunks == 32 ? 5 : 6;
    unsigned char* to = memory + to_slot * w.stage_bytes + w.weight_bytes;
#pragma unroll 1
    for (int i = lane; i < n << shift; i += 32) {
      const int row = i >> shift, chunk = i & (chunks - 1);
      const int col = at.group * GROUP_INPUTS + chunk * S::NUMBERS_A_CHUNK;
      const bool there = col < w.cols;
      const long long number = (long long)(first + row) * w.cols + (there ? col : 0);
      const unsigned char* from = static_cast<const unsigned char*>(w.plain) + number * (EXACT ? 4 : 2);
      cp_async16(to + chunk / S::CHUNKS * n * S::ROW + S::chunk_at(row, chunk % S::CHUNKS), from, there);
    }
  }

  // Copies the first steps, but not yet the activations.
  __device__ void begin(const Work& w) {
    slot = 0;
    ahead.begin(w, parts, warp, lane);
#pragma unroll 1
    for (int s = 0; s < w.stages - 1; s++) {
      copy_weights(w, s, ahead);
      if (!ahead.done(w)) ahead.next(w, parts, warp, lane);
    }
  }
  // Copies the activations of the first steps, once what was launched before has written them.
  __device__ void begin_activations(const Work& w) {
    Walk at;
    at.begin(w, parts, warp, lane);
#pragma unroll 1
    for (int s = 0; s < w.stages - 1; s++) {
      copy_activations(w, s, at);
      cp_async_commit();
      if (!at.done(w)) at.next(w, parts, warp, lane);
    }
  }
  // The next step, once it is there; copies the one that is `stages - 1` behind it to where the last one was.
  __device__ const unsigned char* take(const Work& w) {
    if (w.stages == 3) cp_async_wait<1>();
    else if (w.stages == 4) cp_async_wait<2>();
    else if (w.stages == 8) cp_async_wait<6>();
    else cp_async_wait<0>();
    __syncwarp();
    if (!ahead.done(w)) {
      const int free_slot = slot == 0 ? w.stages - 1 : slot - 1;
      copy_weights(w, free_slot, ahead);
      copy_activations(w, free_slot, ahead);
      ahead.next(w, parts, warp, lane);
    }
    cp_async_commit();
    const unsigned char* taken = memory + slot * w.stage_bytes;
    slot = slot + 1 == w.stages ? 0 : slot + 1;
    return taken;
  }
};
