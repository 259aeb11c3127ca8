// The table of kernels that can be launched by name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace emulation {

using Function = void (*)();
// Calls a kernel with arguments that lie where `arguments` points.
using Call = void (*)(Function kernel, void** arguments);

// The object file that a kernel is in, which keeps its line tables where the linker or cargo drops them, with
// a function of it from which places in its code are counted.
struct Object {
  const char* file;
  const char* registers;  // the function's name
  uint64_t start;
  bool watched;  // whether it tells of its accesses
};

struct Kernel {
  Object object;
  const char* name;
  const char* parameters;  // one letter each, as `Letter` has them
  unsigned threads;        // the most that a block may have
  Function function;
  Call call;
};

void enter(const Kernel& kernel);

// Only what a launch can hand over has a letter; a kernel with another parameter does not compile.
template <class T> struct Letter;
template <class T> struct Letter<T*> {
  static constexpr char value = 'a';
};
template <> struct Letter<int> {
  static constexpr char value = 'i';
};
template <> struct Letter<unsigned> {
  static constexpr char value = 'i';
};
template <> struct Letter<float> {
  static constexpr char value = 'f';
};

template <class... Parameters> struct Caller {
  static constexpr char letters[] = {Letter<Parameters>::value..., '\0'};

  template <size_t... I> static void each(Function kernel, void** arguments, std::index_sequence<I...>) {
    reinterpret_cast<void (*)(Parameters...)>(kernel)(*static_cast<Parameters*>(arguments[I])...);
  }
  static void call(Function kernel, void** arguments) {
    each(kernel, arguments, std::index_sequence_for<Parameters...>{});
  }
};

template <class... Parameters>
inline void add(const Object& object, const char* name, unsigned threads, void (*kernel)(Parameters...)) {
  using Of = Caller<Parameters...>;
  enter({object, name, Of::letters, threads, reinterpret_cast<Function>(kernel), &Of::call});
}

}  // namespace emulation
