// The table of kernels, launches by name, and what becomes of a signal while a kernel runs.
#include "launch.h"

#include <signal.h>
#include <ucontext.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "scheduler.h"

// Enters every kernel; the build writes it.
void emulation_register();

namespace emulation {
namespace {

constexpr uint32_t MOST_THREADS = 1024;
// What a device may say by a signal: no such memory, a check of the compiler, a division by zero.
constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
struct sigaction before[NSIG];

// All kernels, and once more all, compiled to tell of their accesses.
std::vector<Kernel>& kernels(bool watched) {
  static std::vector<Kernel> plain, telling;
  return watched ? telling : plain;
}

using Names = std::unordered_map<std::string, const Kernel*>;

Names by_name(bool watched) {
  Names all;
  for (const Kernel& kernel : kernels(watched)) all[kernel.name] = &kernel;
  return all;
}

const Kernel* find(const char* name, bool watched) {
  static const Names plain = by_name(false), telling = by_name(true);
  const Names& names = watched ? telling : plain;
  const auto found = names.find(name);
  return found == names.end() ? nullptr : found->second;
}

uint64_t instruction(const ucontext_t* context) {
#if defined(__x86_64__)
  return uint64_t(context->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return context->uc_mcontext.pc;
#else
  return 0;
#endif
}

bool writes(const ucontext_t* context) {
#if defined(__x86_64__)
  return context->uc_mcontext.gregs[REG_ERR] & 2;
#else
  return false;
#endif
}

void on_signal(int signal, siginfo_t* info, void* raw) {
  const auto* context = static_cast<ucontext_t*>(raw);
  if (active && self) {
    active->fault(signal, reinterpret_cast<uint64_t>(info->si_addr), instruction(context), writes(context));
  }
  // Not ours: as if this handler were not there.
  sigaction(signal, &before[signal], nullptr);
}

void catch_signals() {
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  // The handler leaves by a jump: the signal must not stay blocked, and the stack may be one that was
  // overrun.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int signal : SIGNALS) sigaction(signal, &action, &before[signal]);
}

bool refuse(Failure* failure, const char* text) {
  failure->kind = MISTAKE;
  snprintf(failure->text, sizeof failure->text, "%s", text);
  return false;
}

bool check(const Kernel* kernel, const LaunchRequest& request, Failure* failure) {
  if (!kernel) return refuse(failure, "no such kernel");
  if (strcmp(kernel->parameters, request.parameters) != 0) {
    snprintf(failure->text, sizeof failure->text, "its parameters are `%s`, the launch has `%s`",
             kernel->parameters, request.parameters);
    failure->kind = MISTAKE;
    return false;
  }
  if (request.threads == 0 || request.threads > MOST_THREADS)
    return refuse(failure, "1 to 1024 threads a block");
  if (request.threads > kernel->threads) return refuse(failure, "more threads than its KERNEL_OF says");
  if (request.shared > request.shared_limit) return refuse(failure, "more shared memory than the device has");
  const uint32_t* grid = request.grid;
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return refuse(failure, "a grid without blocks");
  if (grid[1] > 65535 || grid[2] > 65535 || grid[0] > 0x7fffffff) return refuse(failure, "too large a grid");
  return true;
}

// Before the first launch.
void prepare() {
  static std::once_flag once;
  std::call_once(once, [] {
    emulation_register();
    catch_signals();
  });
}

}  // namespace

void enter(const Kernel& kernel) { kernels(kernel.object.watched).push_back(kernel); }

}  // namespace emulation

extern "C" void emulation_launch(const LaunchRequest* request, Failure* failure) {
  using namespace emulation;
  prepare();
  *failure = {};
  const Kernel* kernel = find(request->kernel, request->watch != nullptr);
  if (!check(kernel, *request, failure)) return;
  Scheduler::mine().run(*kernel, *request, failure);
}

extern "C" const char* emulation_kernel(uint32_t number) {
  emulation::prepare();
  const auto& all = emulation::kernels(false);
  return number < all.size() ? all[number].name : nullptr;
}
