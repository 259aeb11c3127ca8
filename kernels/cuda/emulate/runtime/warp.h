// What the lanes of a warp do together. The last lane of the mask to arrive does the work of all.
#pragma once
#include <cmath>

#include "site.h"
#include "thread.h"

namespace emulation {

enum class Collective { Sync, Shuffle, Vote, Reduction, Mma, MmaHalf, LoadMatrix };

// Works on what each lane of the mask brought; `brought[lane]` of other lanes is undefined.
using Work = void (*)(void** brought, unsigned mask);

// Waits for all lanes of the mask, which must come to the same line with the same mask.
void collective(Collective kind, unsigned mask, void* brought, Work work, Site site);

constexpr unsigned ALL = 0xffffffffu;

template <class T> struct Shuffled {
  T in, out;
  int source;
};

// Every lane gets what lane `source` brought; its own where that one is not in the mask.
template <class T> inline T shuffle(unsigned mask, T value, int source, Site site) {
  Shuffled<T> mine{value, value, source};
  const auto work = [](void** brought, unsigned mask) {
    for (int i = 0; i < 32; i++) {
      if (!(mask >> i & 1)) continue;
      auto* to = static_cast<Shuffled<T>*>(brought[i]);
      if (mask >> to->source & 1) to->out = static_cast<Shuffled<T>*>(brought[to->source])->in;
    }
  };
  collective(Collective::Shuffle, mask, &mine, work, site);
  return mine.out;
}

// Lane `source` of this lane's group of `width` lanes; this one where `source` lies outside of the group.
inline int in_group(int source, int width) {
  const int first = self->lane & ~(width - 1);
  return source < first || source >= first + width ? self->lane : source;
}

unsigned ballot(unsigned mask, bool vote, Site site);

// In the order of five shuffles by 16, 8, 4, 2, 1: every lane gets the same bits.
template <class T, class Combine> inline T reduce(T value, Combine, Site site) {
  const auto work = [](void** brought, unsigned mask) {
    T now[32], next[32];
    for (int i = 0; i < 32; i++) now[i] = mask >> i & 1 ? *static_cast<T*>(brought[i]) : T(0);
    for (int apart = 16; apart; apart >>= 1) {
      for (int i = 0; i < 32; i++) next[i] = Combine::of(now[i], now[i ^ apart]);
      for (int i = 0; i < 32; i++) now[i] = next[i];
    }
    for (int i = 0; i < 32; i++) {
      if (mask >> i & 1) *static_cast<T*>(brought[i]) = now[i];
    }
  };
  collective(Collective::Reduction, ALL, &value, work, site);
  return value;
}

struct Sum {
  static float of(float a, float b) { return a + b; }
};
struct Max {
  static float of(float a, float b) { return std::fmax(a, b); }
  static int of(int a, int b) { return a > b ? a : b; }
};

}  // namespace emulation

inline void __syncwarp(unsigned mask = emulation::ALL, emulation::Site site = emulation::Site::here()) {
  emulation::collective(emulation::Collective::Sync, mask, nullptr, nullptr, site);
}
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                                        emulation::Site site = emulation::Site::here()) {
  const int first = emulation::self->lane & ~(width - 1);
  return emulation::shuffle(mask, value, first | (source & (width - 1)), site);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                                            emulation::Site site = emulation::Site::here()) {
  return emulation::shuffle(mask, value, emulation::in_group(emulation::self->lane ^ bits, width), site);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, int by, int width = 32,
                                             emulation::Site site = emulation::Site::here()) {
  return emulation::shuffle(mask, value, emulation::in_group(emulation::self->lane + by, width), site);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, int by, int width = 32,
                                           emulation::Site site = emulation::Site::here()) {
  return emulation::shuffle(mask, value, emulation::in_group(emulation::self->lane - by, width), site);
}
inline unsigned __ballot_sync(unsigned mask, bool vote, emulation::Site site = emulation::Site::here()) {
  return emulation::ballot(mask, vote, site);
}
inline bool __any_sync(unsigned mask, bool vote, emulation::Site site = emulation::Site::here()) {
  return emulation::ballot(mask, vote, site) != 0;
}
inline bool __all_sync(unsigned mask, bool vote, emulation::Site site = emulation::Site::here()) {
  return emulation::ballot(mask, !vote, site) == 0;
}
inline float warp_sum(float value, emulation::Site site = emulation::Site::here()) {
  return emulation::reduce(value, emulation::Sum{}, site);
}
inline float warp_max(float value, emulation::Site site = emulation::Site::here()) {
  return emulation::reduce(value, emulation::Max{}, site);
}
inline int warp_sum_int(int value, emulation::Site site = emulation::Site::here()) {
  return emulation::reduce(value, emulation::Sum{}, site);
}
inline int warp_max_int(int value, emulation::Site site = emulation::Site::here()) {
  return emulation::reduce(value, emulation::Max{}, site);
}
