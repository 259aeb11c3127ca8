// Votes.
#include "warp.h"

namespace emulation {
namespace {

struct Vote {
  bool yes;
  unsigned all;
};

}  // namespace

unsigned ballot(unsigned mask, bool vote, Site site) {
  Vote mine{vote, 0};
  const auto work = [](void** brought, unsigned mask) {
    unsigned all = 0;
    for (int i = 0; i < 32; i++) {
      if (mask >> i & 1 && static_cast<Vote*>(brought[i])->yes) all |= 1u << i;
    }
    for (int i = 0; i < 32; i++) {
      if (mask >> i & 1) static_cast<Vote*>(brought[i])->all = all;
    }
  };
  collective(Collective::Vote, mask, &mine, work, site);
  return mine.all;
}

}  // namespace emulation
