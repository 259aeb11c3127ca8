// Copies that land at their wait, and no sooner.
#include "copies.h"

#include <cstdint>
#include <cstring>
#include <numeric>

#include "scheduler.h"

namespace emulation {
namespace {

constexpr size_t BYTES = 16;
constexpr int POISON = 0xff;

void tell(const void* at, const void* code, bool writes) {
  if (active->watch) active->watch->access(reinterpret_cast<uint64_t>(at), BYTES, writes, code);
}

}  // namespace

void copy_later(void* to, const void* from, bool valid, Site site) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % BYTES) {
    active->fail("a copy at %s:%d that is not aligned to 16 bytes", file_name(site), site.line);
  }
  Thread& thread = Scheduler::running();
  thread.site = site;
  const void* code = __builtin_return_address(0);
  tell(to, code, true);
  memset(to, POISON, BYTES);
  thread.copies.push_back({to, from, valid, site, code});
}

void end_group() {
  Thread& thread = Scheduler::running();
  thread.groups.push_back(thread.copies.size() -
                          std::accumulate(thread.groups.begin(), thread.groups.end(), size_t(0)));
}

void wait_for_groups(int still_open) {
  Thread& thread = Scheduler::running();
  while (thread.groups.size() > size_t(still_open)) {
    const auto end = thread.copies.begin() + ptrdiff_t(thread.groups.front());
    for (auto copy = thread.copies.begin(); copy != end; ++copy) {
      thread.site = copy->site;
      tell(copy->to, copy->code, true);
      if (copy->valid) tell(copy->from, copy->code, false);
      if (copy->valid) {
        memcpy(copy->to, copy->from, BYTES);
      } else {
        memset(copy->to, 0, BYTES);
      }
    }
    thread.copies.erase(thread.copies.begin(), end);
    thread.groups.erase(thread.groups.begin());
  }
}

}  // namespace emulation
