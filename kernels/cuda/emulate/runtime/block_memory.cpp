// Shared memory in guarded pages.
#include "block_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace emulation {
namespace {

// NaN in every format of floats, and easy to see in a debugger.
constexpr int POISON = 0xff;
// What kernels may expect of a shared array. More would leave more bytes behind it whose reads nobody sees.
constexpr size_t ALIGNMENT = 16;
// Bytes in front of an array that are looked at for writes.
constexpr size_t FRONT = 64;

// Bytes on either side that nobody may touch: whole pages, whatever their size.
constexpr size_t GUARD = 256 << 10;
constexpr size_t PAGE = 64 << 10;

size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

bool poisoned(const char* from, const char* to) {
  for (; from < to; from++) {
    if (*from != char(POISON)) return false;
  }
  return true;
}

}  // namespace

GuardedPages::~GuardedPages() {
  if (area) munmap(area, room + 2 * GUARD);
}

char* GuardedPages::end() const { return area + GUARD + room; }

void GuardedPages::make_room(size_t wanted) {
  wanted = rounded(wanted + FRONT, PAGE);
  if (wanted <= room) return;
  if (area) munmap(area, room + 2 * GUARD);
  constexpr int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* pages = mmap(nullptr, wanted + 2 * GUARD, PROT_NONE, kind, -1, 0);
  if (pages == MAP_FAILED) abort();
  area = static_cast<char*>(pages);
  room = wanted;
  begin = end();
  mprotect(area + GUARD, room, PROT_READ | PROT_WRITE);
  memset(area + GUARD, POISON, room);
}

void GuardedPages::poison(size_t size) {
  make_room(size);
  char* const before = begin;
  bytes = size;
  begin = end() - rounded(size, ALIGNMENT);
  // What the last block had, if that was more, lies in front of this one.
  memset(std::min(before, begin) - FRONT, POISON, size_t(end() - std::min(before, begin)) + FRONT);
}

bool GuardedPages::whole() const {
  return !area || (poisoned(begin - FRONT, begin) && poisoned(begin + bytes, end()));
}

bool GuardedPages::owns(uint64_t address) const {
  const auto first = reinterpret_cast<uint64_t>(area);
  return area && first <= address && address < first + room + 2 * GUARD;
}

std::string GuardedPages::where(uint64_t address, const std::string& name) const {
  const auto first = reinterpret_cast<uint64_t>(begin), last = first + bytes;
  const std::string whole = name + " of " + std::to_string(bytes) + " bytes";
  if (address < first) return std::to_string(first - address) + " bytes in front of " + whole;
  if (address < last) return "in " + whole;
  return std::to_string(address - last) + " bytes behind the end of " + whole;
}

void BlockMemory::begin(size_t dynamic_bytes) {
  dynamic.poison(dynamic_bytes);
  declared_bytes = 0;
  met.clear();
  block++;
}

void* BlockMemory::array(SharedArray& declared) {
  static std::atomic<int> numbers{0};
  int number = declared.number.load();
  if (number == 0) {
    const int mine = ++numbers;
    // Another thread of the process may have met it first.
    number = declared.number.compare_exchange_strong(number, mine) ? mine : declared.number.load();
  }
  while (arrays.size() <= size_t(number)) arrays.push_back(std::make_unique<Array>());
  Array& array = *arrays[number];
  if (array.block != block) {
    array.block = block;
    array.name = declared.name;
    array.pages.poison(declared.bytes);
    declared_bytes += declared.bytes;
    met.push_back(&array);
  }
  return array.pages.start();
}

const char* BlockMemory::damaged() const {
  if (!dynamic.whole()) return "the dynamic shared memory";
  for (const Array* array : met) {
    if (!array->pages.whole()) return array->name;
  }
  return nullptr;
}

bool BlockMemory::owns(uint64_t address) const {
  if (dynamic.owns(address)) return true;
  for (const Array* array : met) {
    if (array->pages.owns(address)) return true;
  }
  return false;
}

std::string BlockMemory::where(uint64_t address) const {
  if (dynamic.owns(address)) return dynamic.where(address, "the dynamic shared memory");
  for (const Array* array : met) {
    if (array->pages.owns(address)) {
      return array->pages.where(address, std::string("the shared array `") + array->name + "`");
    }
  }
  return "";
}

}  // namespace emulation
