// Copies to shared memory that a thread asks for and waits for later (cp.async).
#pragma once
#include "site.h"

namespace emulation {

// The destination is poisoned at once and gets its bytes at the wait: nobody can read them too early unseen.
void copy_later(void* to, const void* from, bool valid, Site site);
void end_group();
void wait_for_groups(int still_open);

}  // namespace emulation

inline void cp_async16(void* to, const void* from, bool valid,
                       emulation::Site site = emulation::Site::here()) {
  emulation::copy_later(to, from, valid, site);
}
inline void cp_async_commit() { emulation::end_group(); }
template <int N> inline void cp_async_wait() { emulation::wait_for_groups(N); }
