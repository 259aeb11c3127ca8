// Accesses to memory, of kernels that were compiled to tell of each: which of them nothing orders.
//
// Two accesses to a byte, one of them a write, are ordered if one thread does both, if a barrier of the block
// or a
// __syncwarp of the warp lies between them, or if the first one's block publishes it (__threadfence, then
// something atomic) where the second one's block looks afterwards. Any other two are a race, whatever order
// they had today.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "thread.h"

namespace emulation {

struct Block;
struct Thread;

// Who accessed a place, and when by the clocks of its block and warp.
struct Access {
  uint32_t launch;
  uint32_t block;
  uint32_t epoch;  // barriers of the block before it
  uint16_t thread;
  uint16_t warp_epoch;  // __syncwarps of the warp before it
  const void* code;
};

// What a block has published: all that was before so many of its barriers, and what these warps did since
// then.
struct Published {
  uint32_t epoch;
  uint32_t warps;
};
using Seen = std::unordered_map<uint32_t, Published>;

// One for each device: it knows what earlier launches wrote.
class Watch {
 public:
  // A launch begins. What was written before launch `settled` nothing has to wait for; the device's memory
  // lies between these addresses.
  void begin(uint32_t launch, uint32_t settled, bool overlaps, const uint64_t memory[2]);
  void access(uint64_t address, uint64_t bytes, bool writes, const void* code);
  void meet(uint64_t address, Meeting kind);

 private:
  // Of two bytes: kernels write no single ones.
  struct Cell {
    Access write, reads[2];
  };
  static constexpr uint64_t CELL = 2, PAGE = 1024;  // bytes of a cell, cells of a page

  Cell& cell(uint64_t address);
  void check_early(const Cell& cell, bool writes, const void* code);
  bool races(const Access& before, bool shared) const;
  static Published fenced(const Block& block, const Thread& thread);
  void report(const char* what, const Access& before, const void* code);

  uint32_t launch = 0, settled = 0;
  bool overlaps = false;
  uint64_t from = 0, to = 0;
  std::unordered_map<uint64_t, std::unique_ptr<Cell[]>> pages;
  uint64_t last_page = ~uint64_t(0);
  Cell* last = nullptr;
  // What was published at each address that something atomic was done to.
  std::unordered_map<uint64_t, Seen> published;
};

}  // namespace emulation

extern "C" {
emulation::Watch* emulation_watch();
void emulation_forget_watch(emulation::Watch* watch);
}
