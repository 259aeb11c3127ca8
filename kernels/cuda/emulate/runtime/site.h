// A place in a kernel's source, for messages.
#pragma once

namespace emulation {

struct Site {
  const char* file;
  int line;

  // As a default argument: the line of the call.
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

inline bool operator==(Site a, Site b) { return a.file == b.file && a.line == b.line; }

}  // namespace emulation
