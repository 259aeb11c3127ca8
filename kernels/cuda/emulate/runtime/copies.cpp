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

}  // namespace

void copy_later(void* to, const void* from, bool valid, Site site) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % BYTES) {
    active->fail("a copy at %s:%d that is not aligned to 16 bytes", file_name(site), site.line);
  }
  Thread& thread = Scheduler::running();
  thread.site = site;
  memset(to, POISON, BYTES);
  thread.copies.push_back({to, from, valid, site});
}

void end_group() {
  Thread& thread = Scheduler::running();
  thread.groups.push_back(thread.copies.size() - std::accumulate(thread.groups.begin(), thread.groups.end(), size_t(0)));
}

void wait_for_groups(int still_open) {
  Thread& thread = Scheduler::running();
  while (thread.groups.size() > size_t(still_open)) {
    const auto end = thread.copies.begin() + ptrdiff_t(thread.groups.front());
    for (auto copy = thread.copies.begin(); copy != end; ++copy) {
      thread.site = copy->site;
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
