// Stacks and the switch between them.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace emulation {
namespace {

constexpr size_t AREA_STACKS = 256;
constexpr uint64_t CANARY = 0x5ac35ac35ac35ac3;

}  // namespace

#ifdef EMULATION_UCONTEXT

static void begin(Stack* stack, Entry entry) {
  getcontext(&stack->context);
  stack->context.uc_stack.ss_sp = stack->bottom;
  stack->context.uc_stack.ss_size = STACK_BYTES;
  stack->context.uc_link = nullptr;
  makecontext(&stack->context, entry, 0);
}

#else

// Keeps the registers that a function has to keep. It jumps where a `ret` would do: a processor predicts
// returns by its own stack of calls, which is another thread's here, but jumps by where they went before.
asm(R"(
.text
.p2align 4
.globl emulation_switch
.type emulation_switch,@function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size emulation_switch, .-emulation_switch
)");

static void begin(Stack* stack, Entry entry) {
  void** top = reinterpret_cast<void**>(stack->bottom + STACK_BYTES) - 1;
  *--top = reinterpret_cast<void*>(entry);  // where the jump goes, with the stack as a call leaves it
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  stack->context = top;
}

#endif

Stacks::~Stacks() {
  for (Stack* stack : all) delete stack;
  for (char* area : areas) munmap(area, AREA_STACKS * STACK_BYTES);
}

void Stacks::make_more() {
  constexpr int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* area = mmap(nullptr, AREA_STACKS * STACK_BYTES, PROT_READ | PROT_WRITE, kind, -1, 0);
  if (area == MAP_FAILED) abort();
  areas.push_back(static_cast<char*>(area));
  for (size_t i = AREA_STACKS; i-- > 0;) {
    auto* stack = new Stack{{}, areas.back() + i * STACK_BYTES};
    memcpy(stack->bottom, &CANARY, sizeof CANARY);
    all.push_back(stack);
    idle.push_back(stack);
  }
}

Stack* Stacks::take(Entry entry) {
  if (idle.empty()) make_more();
  Stack* stack = idle.back();
  idle.pop_back();
  begin(stack, entry);
  return stack;
}

bool Stacks::give_back(Stack* stack) {
  idle.push_back(stack);
  return memcmp(stack->bottom, &CANARY, sizeof CANARY) == 0;
}

void Stacks::give_back_all() {
  idle = all;
  for (Stack* stack : all) memcpy(stack->bottom, &CANARY, sizeof CANARY);
}

bool Stacks::hold(uint64_t address) const {
  for (const char* area : areas) {
    if (address - reinterpret_cast<uint64_t>(area) < AREA_STACKS * STACK_BYTES) return true;
  }
  return false;
}

}  // namespace emulation
