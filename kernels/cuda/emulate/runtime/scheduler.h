// The blocks of a launch that are resident, their warps and threads, and whose turn it is.
#pragma once
#include <csetjmp>
#include <cstdarg>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "block_memory.h"
#include "fiber.h"
#include "kernels.h"
#include "launch.h"
#include "thread.h"
#include "warp.h"
#include "watch.h"

namespace emulation {

struct Warp;

struct Copy {
  void* to;
  const void* from;
  bool valid;
  Site site;
  const void* code;  // that asked for it
};

struct Thread : Position {
  Warp* warp = nullptr;
  Stack* stack = nullptr;  // none before it began and after it ended
  // What it waits for: a barrier, its turn to poll, or the other lanes of a collective.
  Site site;
  Collective kind;
  unsigned mask;
  void* brought;
  // For those who watch: whether it waited for the launch before, and the block's barriers before its last
  // fence.
  bool waited, fenced;
  uint32_t fence_epoch;
  // Copies asked for, and how many of them each closed group has.
  std::vector<Copy> copies;
  std::vector<size_t> groups;
};

struct Block : BlockPosition {
  uint64_t number;
  unsigned alive, at_barrier;
  Site barrier;
  Warp* warps;
  unsigned warp_count;
  BlockMemory memory;
  // For those who watch: barriers so far, those before one of its threads had waited for the launch before,
  // and what it knows of other blocks.
  uint32_t epoch, waited;
  Seen seen;
};

// Each lane is in at most one of the sets; one that runs is ready.
struct Warp {
  Block* block;
  Thread* threads;
  unsigned lanes, ready, at_collective, at_barrier, polling, ended;
  bool asleep;     // goes on once no other can
  uint16_t epoch;  // __syncwarps so far
};

// Blocks that are resident at once, and their warps and threads in their order. They stay from launch to launch: a
// thread that has ended is as good as new.
struct Room {
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<Warp> warps;
  std::vector<Thread> threads;

  void make(unsigned block_threads, unsigned block_count);
  void clean_up();
};

class Scheduler {
 public:
  // One for each thread of the process that launches, kept from launch to launch.
  static Scheduler& mine();

  // False where the launch failed; `failure` says how.
  bool run(const Kernel& kernel, const LaunchRequest& request, Failure* failure);

  // For the kernel's thread that runs:

  void barrier(Site site);
  void collective(Collective kind, unsigned mask, void* brought, Work work, Site site);
  void meet(const void* at, Meeting kind);
  void fence();
  void spin(Site site);
  void wait_for_launch();
  void* shared_array(SharedArray& array);
  void* dynamic_shared();
  // Ends the launch; does not return.
  [[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
  // As `fail`, of accesses by one or two instructions.
  [[noreturn]] void fail_at(const void* code, const void* other, const char* format, ...)
      __attribute__((format(printf, 4, 5)));
  // As `fail`, from a signal's handler: memory was accessed that may not be.
  [[noreturn]] void fault(int signal, uint64_t address, uint64_t at, bool writes);

  // Who is told of accesses, if anybody.
  Watch* watch = nullptr;
  bool on_stack(uint64_t address) const { return stacks.hold(address); }

  static Thread& running() { return *static_cast<Thread*>(const_cast<Position*>(self)); }

 private:
  void begin_next_block(Block& block);
  void end_block(Block& block);
  [[noreturn]] static void thread_body();
  Thread* end_thread(Thread& thread);
  void check_lanes(const Warp& warp, unsigned mask);

  Thread* next();
  void give_way();
  void tell_where(const char* format, va_list arguments);
  bool wake();
  Thread* lane_of(Warp& warp);
  void leave_warp(unsigned one_in);
  void suspend();
  [[noreturn]] void stop();
  [[noreturn]] void standstill();
  uint64_t draw();
  uint64_t block_number(uint64_t turn);

  Kernel kernel;
  LaunchRequest request;
  Failure* failure;
  // By the threads of a block: launches of different shapes follow each other all the time.
  std::map<unsigned, Room> rooms;
  Room* room;
  size_t warp_count;  // of the blocks that take turns
  std::vector<uint64_t> shuffled;
  uint64_t begun, ended, total;
  size_t turn;
  uint64_t random;
  unsigned polls;
  bool waited_for_launch;
  Stacks stacks;
  Context main;
  sigjmp_buf escape;
};

// That of the launch that runs on this thread of the process; none in between.
extern __thread Scheduler* active __attribute__((tls_model("initial-exec")));

const char* file_name(Site site);

}  // namespace emulation
