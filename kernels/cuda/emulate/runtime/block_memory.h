// The shared memory of a resident block: poisoned before each block, ending where a page ends that nobody may
// touch.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "shared.h"

namespace emulation {

// Pages between two that cannot be accessed; what is in them lies at their end.
class GuardedPages {
 public:
  GuardedPages() = default;
  GuardedPages(const GuardedPages&) = delete;
  ~GuardedPages();
  // Sets the size and poisons all of it.
  void poison(size_t bytes);
  // Whether what lies in front of it, and the bytes that its alignment leaves behind it, are as poisoned.
  bool whole() const;
  // Whether an address is in it, or in the pages around it; and where, in words.
  bool owns(uint64_t address) const;
  std::string where(uint64_t address, const std::string& name) const;
  char* start() const { return begin; }

 private:
  void make_room(size_t bytes);
  char* end() const;

  char *area = nullptr, *begin = nullptr;
  size_t room = 0, bytes = 0;
};

class BlockMemory {
 public:
  // For the next block, with so much dynamic memory. What it declares is poisoned as it is met.
  void begin(size_t dynamic_bytes);
  void* dynamic_start() const { return dynamic.start(); }
  void* array(SharedArray& declared);
  // Bytes of arrays that were met.
  size_t declared() const { return declared_bytes; }
  // The array outside of which something was written, if there is one.
  const char* damaged() const;
  bool owns(uint64_t address) const;
  // What lies at an address, in words; empty where it is none of this.
  std::string where(uint64_t address) const;

 private:
  struct Array {
    const char* name = nullptr;
    uint64_t block = 0;
    GuardedPages pages;
  };
  GuardedPages dynamic;
  std::vector<std::unique_ptr<Array>> arrays;
  std::vector<const Array*> met;  // by this block
  uint64_t block = 0;
  size_t declared_bytes = 0;
};

}  // namespace emulation
