// Whose turn it is. Each warp runs as far as it goes before another does: the greatest skew that a device may
// show.
#include "scheduler.h"

#include <csignal>
#include <cstdio>
#include <cstring>
#include <numeric>

namespace emulation {
namespace {

// How often threads that poll may be woken with nobody else left to run.
constexpr unsigned MOST_POLLS = 10000;
// CUDA's own limit for arrays that are declared with a size.
constexpr size_t MOST_DECLARED = 48 << 10;

}  // namespace

__thread Position* self __attribute__((tls_model("initial-exec")));

__thread Scheduler* active __attribute__((tls_model("initial-exec")));

Scheduler& Scheduler::mine() {
  // Never freed: the process's threads that launch are few, and one that ends may still be in a signal's
  // handler.
  static thread_local Scheduler* mine = new Scheduler;
  return *mine;
}

const char* file_name(Site site) {
  const char* slash = strrchr(site.file, '/');
  return slash ? slash + 1 : site.file;
}

uint64_t Scheduler::draw() {
  random ^= random << 13;
  random ^= random >> 7;
  random ^= random << 17;
  return random >> 11;
}

// ---- A launch

bool Scheduler::run(const Kernel& which, const LaunchRequest& wanted, Failure* to) {
  kernel = which;
  request = wanted;
  failure = to;
  total = uint64_t(request.grid[0]) * request.grid[1] * request.grid[2];
  random = (request.seed + 1) * 0x9e3779b97f4a7c15;
  begun = ended = 0;
  polls = 0;
  waited_for_launch = false;
  watch = request.watch;
  if (watch) watch->begin(request.launch, request.settled, request.overlaps, request.memory);
  const unsigned slots = unsigned(std::min<uint64_t>(std::max(1u, request.resident), total));
  room = &rooms[request.threads];
  room->make(request.threads, slots);
  warp_count = size_t(slots) * room->blocks[0]->warp_count;
  if (request.order == RANDOM) {
    shuffled.resize(total);
    std::iota(shuffled.begin(), shuffled.end(), 0);
    for (uint64_t i = total; i > 1; i--) std::swap(shuffled[i - 1], shuffled[draw() % i]);
  }
  active = this;
  if (sigsetjmp(escape, 0) == 0) {
    for (unsigned i = 0; i < slots; i++) begin_next_block(*room->blocks[i]);
    turn = request.order == REVERSE ? warp_count - 1 : 0;
    Thread* first = next();
    first->stack = stacks.take(thread_body);
    self = first;
    switch_to(main, first->stack->context);
  }
  active = nullptr;
  self = nullptr;
  if (failure->kind == NONE) return true;
  stacks.give_back_all();
  room->clean_up();
  return false;
}

// Gives up the threads that a failure left standing.
void Room::clean_up() {
  for (Thread& thread : threads) {
    thread.stack = nullptr;
    thread.copies.clear();
    thread.groups.clear();
  }
}

void Room::make(unsigned block_threads, unsigned block_count) {
  if (block_count <= blocks.size()) return;
  const unsigned warps_each = (block_threads + 31) / 32;
  while (blocks.size() < block_count) blocks.push_back(std::make_unique<Block>());
  warps.assign(size_t(warps_each) * block_count, Warp{});
  threads.assign(size_t(block_threads) * block_count, Thread{});
  for (unsigned b = 0; b < block_count; b++) {
    blocks[b]->warps = &warps[size_t(b) * warps_each];
    blocks[b]->warp_count = warps_each;
    for (unsigned t = 0; t < block_threads; t++) {
      Thread& thread = threads[size_t(b) * block_threads + t];
      Warp& warp = blocks[b]->warps[t / 32];
      if (t % 32 == 0) warp.threads = &thread;
      warp.block = blocks[b].get();
      warp.lanes |= 1u << t % 32;
      thread.thread = {t, 0, 0};
      thread.lane = int(t % 32);
      thread.block = warp.block;
      thread.warp = &warp;
    }
  }
}

uint64_t Scheduler::block_number(uint64_t at) {
  if (request.order == RANDOM) return shuffled[at];
  return request.order == REVERSE ? total - 1 - at : at;
}

void Scheduler::begin_next_block(Block& block) {
  const uint32_t* grid = request.grid;
  block.number = block_number(begun++);
  block.index = {unsigned(block.number % grid[0]), unsigned(block.number / grid[0] % grid[1]),
                 unsigned(block.number / grid[0] / grid[1])};
  block.threads = {request.threads, 1, 1};
  block.blocks = {grid[0], grid[1], grid[2]};
  block.alive = request.threads;
  block.at_barrier = 0;
  block.memory.begin(request.shared);
  block.epoch = 0;
  block.waited = UINT32_MAX;
  block.seen.clear();
  for (unsigned i = 0; i < block.warp_count; i++) {
    Warp& warp = block.warps[i];
    warp.ready = warp.lanes;
    warp.at_collective = warp.at_barrier = warp.polling = warp.ended = 0;
    warp.asleep = false;
    warp.epoch = 0;
  }
}

void Scheduler::end_block(Block& block) {
  if (const char* name = block.memory.damaged()) {
    fail("it wrote outside of `%s`, next to it in shared memory", name);
  }
  ended++;
  if (begun < total) begin_next_block(block);
}

// ---- A thread

// What a stack runs: one thread after the other, as long as they end without waiting.
void Scheduler::thread_body() {
  Scheduler& mine = *active;
  for (;;) {
    Thread& thread = running();
    thread.site.file = "";
    thread.waited = thread.fenced = false;
    mine.kernel.call(mine.kernel.function, mine.request.arguments);
    Thread* next = mine.end_thread(thread);
    Stack* stack = thread.stack;
    thread.stack = nullptr;
    self = next;
    if (next && !next->stack) {
      next->stack = stack;
      continue;
    }
    if (!mine.stacks.give_back(stack)) mine.fail("its stack is too small");
    Context unused;
    switch_to(unused, next ? next->stack->context : mine.main);
  }
}

// The thread that goes on; none where this was the last one of the launch.
Thread* Scheduler::end_thread(Thread& thread) {
  Warp& warp = *thread.warp;
  Block& block = *warp.block;
  if (!thread.copies.empty()) {
    const Site site = thread.copies.back().site;
    fail("a thread ends without waiting for its copy of %s:%d", file_name(site), site.line);
  }
  if (block.at_barrier) {
    fail("a thread ends while others wait at the barrier of %s:%d", file_name(block.barrier),
         block.barrier.line);
  }
  const unsigned lane = 1u << thread.lane;
  for (unsigned rest = warp.at_collective; rest; rest &= rest - 1) {
    const Thread& other = warp.threads[__builtin_ctz(rest)];
    if (other.mask & lane) {
      fail("lane %d ends while others wait for it at %s:%d", thread.lane, file_name(other.site),
           other.site.line);
    }
  }
  warp.ready &= ~lane;
  warp.ended |= lane;
  polls = 0;
  if (--block.alive == 0) end_block(block);
  if (ended == total) {
    if (request.overlaps && !waited_for_launch)
      fail("it may overlap the launch before, and does not wait for it");
    return nullptr;
  }
  return next();
}

void Scheduler::barrier(Site site) {
  Thread& thread = running();
  Block& block = *thread.warp->block;
  thread.site = site;
  if (block.alive < block.threads.x)
    fail("a barrier at %s:%d that not all threads of the block reach: some have ended", file_name(site),
         site.line);
  if (block.at_barrier && !(block.barrier == site)) {
    fail("a barrier at %s:%d while other threads wait at that of %s:%d", file_name(site), site.line,
         file_name(block.barrier), block.barrier.line);
  }
  block.barrier = site;
  if (++block.at_barrier == block.alive) {
    block.at_barrier = 0;
    block.epoch++;
    polls = 0;
    for (unsigned i = 0; i < block.warp_count; i++) {
      Warp& warp = block.warps[i];
      warp.ready |= warp.at_barrier;
      warp.at_barrier = 0;
    }
    if (request.order == RANDOM) suspend();
    return;
  }
  const unsigned lane = 1u << thread.lane;
  thread.warp->ready &= ~lane;
  thread.warp->at_barrier |= lane;
  suspend();
}

void Scheduler::check_lanes(const Warp& warp, unsigned mask) {
  const Thread& thread = running();
  const Site site = thread.site;
  if (!(mask >> thread.lane & 1)) {
    fail("lane %d is not in its own mask %#x at %s:%d", thread.lane, mask, file_name(site), site.line);
  }
  if (mask & warp.ended) {
    fail("lanes %#x have ended that %s:%d waits for", mask & warp.ended, file_name(site), site.line);
  }
}

void Scheduler::collective(Collective kind, unsigned mask, void* brought, Work work, Site site) {
  Thread& thread = running();
  Warp& warp = *thread.warp;
  const unsigned lane = 1u << thread.lane;
  // Lanes that the block never had may be named: a block of 16 threads may use full masks.
  mask &= warp.lanes;
  thread.site = site;
  thread.kind = kind;
  thread.mask = mask;
  thread.brought = brought;
  check_lanes(warp, mask);
  if (((warp.at_collective | lane) & mask) != mask) {
    warp.ready &= ~lane;
    warp.at_collective |= lane;
    suspend();
    return;
  }
  void* all[32];
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const int i = __builtin_ctz(rest);
    const Thread& other = warp.threads[i];
    if (!(other.site == site) || other.kind != kind || other.mask != mask) {
      fail("lane %d is at %s:%d with mask %#x, lane %d at %s:%d with mask %#x", thread.lane, file_name(site),
           site.line, mask, i, file_name(other.site), other.site.line, other.mask);
    }
    all[i] = other.brought;
  }
  warp.at_collective &= ~mask;
  warp.ready |= mask;
  polls = 0;
  if (kind == Collective::Sync) warp.epoch++;
  if (work) work(all, mask);
}

void Scheduler::meet(const void* at, Meeting kind) {
  give_way();
  if (watch) watch->meet(reinterpret_cast<uint64_t>(at), kind);
}

void Scheduler::fence() {
  Thread& thread = running();
  thread.fenced = true;
  thread.fence_epoch = thread.warp->block->epoch;
  give_way();
}

void Scheduler::wait_for_launch() {
  Thread& thread = running();
  Block& block = *thread.warp->block;
  waited_for_launch = thread.waited = true;
  block.waited = std::min(block.waited, block.epoch);
}

void Scheduler::give_way() {
  if (request.order != RANDOM && request.resident <= 1) return;
  if (request.order == RANDOM && draw() % 2) return;
  leave_warp(2);
  suspend();
}

void Scheduler::spin(Site site) {
  Thread& thread = running();
  const unsigned lane = 1u << thread.lane;
  thread.site = site;
  thread.warp->ready &= ~lane;
  thread.warp->polling |= lane;
  suspend();
}

void* Scheduler::shared_array(SharedArray& array) {
  BlockMemory& memory = running().warp->block->memory;
  void* start = memory.array(array);
  if (memory.declared() > MOST_DECLARED) fail("arrays of %zu bytes in shared memory", memory.declared());
  if (memory.declared() + request.shared > request.shared_limit) {
    fail("shared memory of %zu bytes and %u dynamic ones", memory.declared(), request.shared);
  }
  return start;
}

void* Scheduler::dynamic_shared() { return running().warp->block->memory.dynamic_start(); }

// ---- Turns

// Another thread goes on, or this one, should it be its turn again.
void Scheduler::suspend() {
  Thread& thread = running();
  Thread* other = next();
  if (other == &thread) return;
  if (!other->stack) other->stack = stacks.take(thread_body);
  self = other;
  switch_to(thread.stack->context, other->stack->context);
}

Thread* Scheduler::next() {
  if (request.order == RANDOM && draw() % 16 == 0) leave_warp(8);
  for (;;) {
    for (size_t seen = 0; seen <= warp_count; seen++) {
      Warp& warp = room->warps[turn];
      if (warp.ready && !warp.asleep) return lane_of(warp);
      if (request.order == REVERSE) {
        turn = turn ? turn - 1 : warp_count - 1;
      } else {
        turn = turn + 1 < warp_count ? turn + 1 : 0;
      }
    }
    if (!wake()) standstill();
  }
}

Thread* Scheduler::lane_of(Warp& warp) {
  if (request.order == FORWARD) return &warp.threads[__builtin_ctz(warp.ready)];
  if (request.order == REVERSE) return &warp.threads[31 - __builtin_clz(warp.ready)];
  const unsigned first = unsigned(draw() % 32), above = warp.ready >> first << first;
  return &warp.threads[__builtin_ctz(above ? above : warp.ready)];
}

// It is another warp's turn. One time in `one_in`, where all is drawn, this one sleeps until nobody else can
// go on: a mistake shows once one thread is late by much more often than where all are late by a little.
void Scheduler::leave_warp(unsigned one_in) {
  if (request.order == RANDOM) {
    room->warps[turn].asleep = draw() % one_in == 0;
    turn = draw() % warp_count;
  } else {
    turn = (turn + 1) % warp_count;
  }
}

// Lets those go on that sleep, or else those that poll.
bool Scheduler::wake() {
  bool slept = false;
  for (size_t i = 0; i < warp_count; i++) {
    Warp& warp = room->warps[i];
    slept |= warp.asleep && warp.ready;
    warp.asleep = false;
  }
  if (slept) return true;
  unsigned polled = 0;
  for (size_t i = 0; i < warp_count; i++) {
    Warp& warp = room->warps[i];
    polled |= warp.polling;
    warp.ready |= warp.polling;
    warp.polling = 0;
  }
  return polled && ++polls <= MOST_POLLS;
}

// ---- Failures

void Scheduler::tell_where(const char* format, va_list arguments) {
  const int length = vsnprintf(failure->text, sizeof failure->text, format, arguments);
  if (!self || length < 0 || size_t(length) >= sizeof failure->text) return;
  const uint3 block = self->block->index;
  snprintf(failure->text + length, sizeof failure->text - length, " (thread %u of block %u, %u, %u)",
           self->thread.x, block.x, block.y, block.z);
}

void Scheduler::fail(const char* format, ...) {
  failure->kind = MISTAKE;
  va_list arguments;
  va_start(arguments, format);
  tell_where(format, arguments);
  va_end(arguments);
  stop();
}

void Scheduler::fail_at(const void* code, const void* other, const char* format, ...) {
  failure->kind = RACE;
  failure->object = kernel.object.file;
  failure->registers = kernel.object.registers;
  // A return address: the access is just before it.
  failure->at = reinterpret_cast<uint64_t>(code) - 1 - kernel.object.start;
  failure->other = other ? reinterpret_cast<uint64_t>(other) - 1 - kernel.object.start : 0;
  failure->file = "";
  va_list arguments;
  va_start(arguments, format);
  tell_where(format, arguments);
  va_end(arguments);
  stop();
}

void Scheduler::fault(int signal, uint64_t address, uint64_t at, bool writes) {
  failure->kind = signal == SIGSEGV || signal == SIGBUS ? (writes ? BAD_WRITE : BAD_READ) : TRAP;
  failure->address = address;
  failure->object = kernel.object.file;
  failure->registers = kernel.object.registers;
  failure->at = at - kernel.object.start;
  failure->file = file_name(running().site);
  failure->line = uint32_t(running().site.line);
  const Thread& thread = running();
  const uint3 block = thread.block->index;
  const std::string where = thread.warp->block->memory.where(address);
  snprintf(failure->text, sizeof failure->text, "%s%s(thread %u of block %u, %u, %u)", where.c_str(),
           where.empty() ? "" : " ", thread.thread.x, block.x, block.y, block.z);
  stop();
}

void Scheduler::stop() { siglongjmp(escape, 1); }

// Nobody can go on: says who waits where.
void Scheduler::standstill() {
  std::string text =
      polls > MOST_POLLS ? "threads poll for what never comes:" : "threads wait for each other:";
  for (size_t i = 0; i < warp_count; i++) {
    const Warp& warp = room->warps[i];
    const unsigned sets[] = {warp.at_barrier, warp.at_collective, warp.ready};
    const char* const names[] = {"at the barrier", "for other lanes", "polling"};
    for (int set = 0; set < 3; set++) {
      if (!sets[set]) continue;
      const Thread& one = warp.threads[__builtin_ctz(sets[set])];
      char line[200];
      snprintf(line, sizeof line, " lanes %#x of the warp of thread %u %s (%s:%d);", sets[set],
               warp.threads[0].thread.x, names[set], file_name(one.site), one.site.line);
      if (text.size() < 600) text += line;
    }
  }
  snprintf(failure->text, sizeof failure->text, "%s", text.c_str());
  text = std::string();
  failure->kind = MISTAKE;
  stop();
}

// ---- What kernels call

void barrier(Site site) { active->barrier(site); }
void meet(const void* at, Meeting kind) { active->meet(at, kind); }
void fence() { active->fence(); }
void spin(Site site) { active->spin(site); }
void wait_for_launch() { active->wait_for_launch(); }
void collective(Collective kind, unsigned mask, void* brought, Work work, Site site) {
  active->collective(kind, mask, brought, work, site);
}
void* shared_array(SharedArray& array) { return active->shared_array(array); }
void* dynamic_shared() { return active->dynamic_shared(); }

}  // namespace emulation
