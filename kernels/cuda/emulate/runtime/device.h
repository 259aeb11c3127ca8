// What gpu.cuh includes where a C++ compiler compiles the kernels for the CPU: CUDA's words, in plain C++.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "copies.h"
#include "kernels.h"
#include "numbers.h"
#include "shared.h"
#include "tensor.h"
#include "thread.h"
#include "types.h"
#include "warp.h"

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__
#define __launch_bounds__(...)

using std::max;
using std::min;

// Kernels are known by the table that the build makes, not by a symbol.
#define KERNEL static void
#define KERNEL_OF(threads, blocks) static void
