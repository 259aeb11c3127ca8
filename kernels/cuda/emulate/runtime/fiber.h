// Stacks, and switching between them: a thread of a kernel that waits keeps its stack.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#if !defined(__x86_64__) || defined(EMULATION_UCONTEXT)
#include <ucontext.h>
#define EMULATION_UCONTEXT
#endif

namespace emulation {

// A kernel's thread holds at most a kilobyte in registers; this is room for many unoptimised calls. The odd
// number of cache lines spreads the stacks' upper ends, which are all that is used, over the sets of the
// caches.
constexpr size_t STACK_BYTES = (64 << 10) + 17 * 64;

// What is left to go on with when a stack is switched away from.
#ifdef EMULATION_UCONTEXT
using Context = ucontext_t;
#else
using Context = void*;
#endif

struct Stack {
  Context context;
  char* bottom;
};

using Entry = void (*)();

// Stacks that are handed out and given back, the last one first: it is warm.
class Stacks {
 public:
  ~Stacks();
  // A stack on which `entry` begins once it is switched to; `entry` never returns.
  Stack* take(Entry entry);
  // Whether it kept within its bounds. It may still be run on until it is taken again.
  bool give_back(Stack* stack);
  // All that were taken are given up.
  void give_back_all();
  // Whether an address is on one of them.
  bool hold(uint64_t address) const;

 private:
  void make_more();
  std::vector<Stack*> all, idle;
  std::vector<char*> areas;
};

// Keeps where the caller stands in `from` and goes on where `to` stood.
#ifdef EMULATION_UCONTEXT
inline void switch_to(Context& from, Context& to) { swapcontext(&from, &to); }
#else
extern "C" void emulation_switch(void** from, void* to);
inline void switch_to(Context& from, Context& to) { emulation_switch(&from, to); }
#endif

}  // namespace emulation
