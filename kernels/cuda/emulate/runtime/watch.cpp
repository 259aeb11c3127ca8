// Races, and reads and writes that come before their launch may do so.
#include "watch.h"

#include "scheduler.h"

namespace emulation {

void Watch::begin(uint32_t number, uint32_t settled_before, bool may_overlap, const uint64_t memory[2]) {
  launch = number;
  settled = settled_before;
  overlaps = may_overlap;
  from = memory[0];
  to = memory[1];
  published.clear();
}

Watch::Cell& Watch::cell(uint64_t address) {
  const uint64_t number = address / CELL, page = number / PAGE;
  if (page != last_page) {
    auto& cells = pages[page];
    if (!cells) cells = std::make_unique<Cell[]>(PAGE);
    last_page = page;
    last = cells.get();
  }
  return last[number % PAGE];
}

void Watch::access(uint64_t address, uint64_t bytes, bool writes, const void* code) {
  const Thread& thread = Scheduler::running();
  const Warp& warp = *thread.warp;
  const Block& block = *warp.block;
  const bool shared = block.memory.owns(address);
  // Neither one's own variables, which are on the stack, nor what the emulation keeps of the thread.
  if (!shared && (address - from >= to - from || active->on_stack(address))) return;
  const Access now{launch, uint32_t(block.number), block.epoch, uint16_t(thread.thread.x), warp.epoch, code};
  const uint64_t end = address + bytes;
  for (uint64_t at = address / CELL * CELL; at < end; at += CELL) {
    Cell& there = cell(at);
    if (!shared) check_early(there, writes, code);
    if (races(there.write, shared))
      report(writes ? "writes what was written" : "reads what is written", there.write, code);
    if (writes) {
      for (const Access& read : there.reads) {
        if (races(read, shared)) report("writes what is read", read, code);
      }
      there.write = now;
    } else if (there.reads[0].thread != now.thread || there.reads[0].block != now.block) {
      there.reads[1] = there.reads[0];
      there.reads[0] = now;
    } else {
      there.reads[0] = now;
    }
  }
}

// A launch that may overlap the one before waits before it touches what others in flight may touch.
void Watch::check_early(const Cell& cell, bool writes, const void* code) {
  const Thread& thread = Scheduler::running();
  if (!overlaps || thread.waited || thread.warp->block->epoch > thread.warp->block->waited) return;
  if (writes) active->fail_at(code, nullptr, "it writes before it waits for the launch before");
  if (cell.write.launch >= settled && cell.write.launch < launch) {
    active->fail_at(
        code, nullptr,
        "it reads what launch %u wrote, before it waits for the launch before (this is launch %u)",
        cell.write.launch, launch);
  }
}

bool Watch::races(const Access& before, bool shared) const {
  if (before.launch != launch) return false;
  const Thread& thread = Scheduler::running();
  const Warp& warp = *thread.warp;
  const Block& block = *warp.block;
  if (before.block == block.number) {
    if (before.thread == thread.thread.x || before.epoch < block.epoch) return false;
    return before.thread / 32 != thread.thread.x / 32 || before.warp_epoch >= warp.epoch;
  }
  // Shared memory of a block that has ended lay where this one's lies.
  if (shared) return false;
  const auto found = block.seen.find(before.block);
  if (found == block.seen.end() || found->second.epoch < before.epoch) return true;
  return found->second.epoch == before.epoch && !(found->second.warps >> before.thread / 32 & 1);
}

void Watch::report(const char* what, const Access& before, const void* code) {
  active->fail_at(code, before.code, "it %s by thread %u of block %u, and nothing orders the two", what,
                  before.thread, before.block);
}

namespace {

void join(Seen& into, uint32_t block, Published published) {
  Published& known = into[block];
  if (known.epoch < published.epoch) {
    known = published;
  } else if (known.epoch == published.epoch) {
    known.warps |= published.warps;
  }
}

}  // namespace

void Watch::meet(uint64_t address, Meeting kind) {
  const Thread& thread = Scheduler::running();
  Block& block = *thread.warp->block;
  Seen& there = published[address];
  for (const auto& [number, what] : there) join(block.seen, number, what);
  if (kind == Meeting::Acquire) return;
  for (const auto& [number, what] : block.seen) join(there, number, what);
  const Published now{block.epoch, 1u << thread.thread.x / 32};
  join(there, uint32_t(block.number), kind == Meeting::Release ? now : fenced(block, thread));
}

// What fences of the block's threads publish where one of them does something atomic: what was before its own
// fence, and before those of others that a barrier lies behind.
Published Watch::fenced(const Block& block, const Thread& thread) {
  Published best{0, 0};
  for (unsigned i = 0; i < block.threads.x; i++) {
    const Thread& other = block.warps[0].threads[i];
    if (!other.fenced || (&other != &thread && other.fence_epoch >= block.epoch)) continue;
    if (other.fence_epoch > best.epoch) best = {other.fence_epoch, 0};
    if (other.fence_epoch == best.epoch) best.warps |= 1u << i / 32;
  }
  return best;
}

}  // namespace emulation

extern "C" emulation::Watch* emulation_watch() { return new emulation::Watch; }
extern "C" void emulation_forget_watch(emulation::Watch* watch) { delete watch; }

// ---- What the compiler calls in kernels that it compiled with -fsanitize=thread: these functions are all of
// it that is here, and the library of that name is not linked.

namespace {

inline void tell(const void* address, uint64_t bytes, bool writes, const void* code) {
  emulation::Scheduler* running = emulation::active;
  if (running && running->watch && emulation::self) {
    running->watch->access(reinterpret_cast<uint64_t>(address), bytes, writes, code);
  }
}

}  // namespace

#define TOLD(bytes)                                                                                          \
  void __tsan_read##bytes(const void* at) { tell(at, bytes, false, __builtin_return_address(0)); }           \
  void __tsan_write##bytes(const void* at) { tell(at, bytes, true, __builtin_return_address(0)); }           \
  void __tsan_unaligned_read##bytes(const void* at) { tell(at, bytes, false, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##bytes(const void* at) { tell(at, bytes, true, __builtin_return_address(0)); }

extern "C" {
TOLD(1)
TOLD(2)
TOLD(4)
TOLD(8)
TOLD(16)
void __tsan_read_range(const void* at, size_t bytes) { tell(at, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(const void* at, size_t bytes) { tell(at, bytes, true, __builtin_return_address(0)); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
