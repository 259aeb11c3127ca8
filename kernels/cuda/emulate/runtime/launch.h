// What is asked for of the emulation, and what it answers: the C interface that Rust calls.
#pragma once
#include <cstdint>

namespace emulation {
class Watch;
}

extern "C" {

// In which order threads and blocks take their turns.
enum Order : uint32_t { FORWARD, REVERSE, RANDOM };

struct LaunchRequest {
  const char* kernel;
  const char* parameters;  // as `Letter` in kernels.h
  void** arguments;
  uint32_t grid[3];
  uint32_t threads;
  uint32_t shared;        // bytes of dynamic shared memory
  uint32_t shared_limit;  // most bytes of shared memory, static and dynamic
  uint32_t overlaps;      // whether it may begin before the launch before has ended
  Order order;
  uint32_t resident;  // blocks that take turns
  uint64_t seed;
  emulation::Watch* watch;  // who is told of accesses; none for kernels that tell nobody
  uint64_t memory[2];       // where the device's memory lies, from and to
  uint32_t launch;          // its number on the device
  uint32_t settled;         // the first launch that may still be in flight
};

enum FailureKind : uint32_t { NONE, MISTAKE, BAD_READ, BAD_WRITE, TRAP, RACE };

struct Failure {
  FailureKind kind;
  uint64_t address;  // that was read or written
  // The instruction, of a read, a write or a trap: an object file, a function in it, and bytes from there.
  const char* object;
  const char* registers;
  uint64_t at;
  uint64_t other;    // of a race: the other instruction
  const char* file;  // where the thread last met others or asked for a copy, of a read, a write or a trap
  uint32_t line;
  char text[1000];
};

void emulation_launch(const LaunchRequest* request, Failure* failure);

// The names of all kernels, one after the other; null behind the last.
const char* emulation_kernel(uint32_t number);
}
