// What the kernels of Griffin's recurrent block share (De et al. 2024): what they read, the convolution, a
// step of the recurrence, and the states that a pass leaves.
#pragma once
#include "activation.cuh"

// The most taps of a convolution; missing ones in front weigh nothing.
constexpr int TAPS = 4;
// Outputs and inputs of a tile of a gate's weights.
constexpr int TILE = 16;
// The most channels of a block on a gate's diagonal.
constexpr int SIDE = 256;

// The layer's weights of each channel.
struct Channels {
  const float* convolution;       // [taps, width], the newest input's last
  const float* convolution_bias;  // [width], as all below
  const float* input_bias;
  const float* recurrence_bias;
  const float* decay;  // -8 softplus(parameter): the logarithm of the strongest decay
};

// The states of a sequence that a pass goes on from and leaves behind. In each the layer's numbers begin at
// `offset`: the recurrence's [width], then the convolution's last inputs [taps - 1, width], oldest first.
struct States {
  const uint64_t* addresses;  // of the one that it goes on from, then of those that it leaves
  const int* kept;            // how many it leaves, then the row that each stands behind, ascending
  int offset;

  // Null where the sequence begins. The address is read beside `start`, not behind it.
  __device__ const float* from(int start) const {
    const uint64_t address = addresses[0];
    return start > 0 ? reinterpret_cast<const float*>(address) + offset : nullptr;
  }
  __device__ float* left(int i) const { return reinterpret_cast<float*>(addresses[1 + i]) + offset; }
  __device__ int count() const { return kept[0]; }
  __device__ int row(int i) const { return kept[1 + i]; }
};

// What a pass's rows bring, and what came before them.
struct Branches {
  const float* xy;      // [rows, 2 * width], the x branch first
  const float* before;  // the state to go on from; null where the sequence begins
  int width, taps;

  // The convolution's input at a row of the pass.
  __device__ float own_x(int row, int channel) const { return xy[size_t(row) * 2 * width + channel]; }
  // The same, or before the pass.
  __device__ float x(int row, int channel) const {
    if (row >= 0) return own_x(row, channel);
    const int slot = taps + row;  // in the state, behind the recurrence
    return before && slot >= 1 ? before[size_t(slot) * width + channel] : 0.f;
  }
  __device__ float y(int row, int channel) const { return xy[(size_t(row) * 2 + 1) * width + channel]; }
  __device__ float recurrence(int channel) const { return before ? before[channel] : 0.f; }
};

// One channel's convolution.
struct Convolution {
  float weight[TAPS], bias;

  __device__ Convolution(const Channels& channels, int channel, int width, int taps) {
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
      const int own = tap - (TAPS - taps);
      weight[tap] = own >= 0 ? channels.convolution[size_t(own) * width + channel] : 0.f;
    }
    bias = channels.convolution_bias[channel];
  }

  // Of TAPS inputs, oldest first.
  __device__ float of(const float* inputs) const {
    float sum = bias;
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) sum = fmaf(weight[tap], inputs[tap], sum);
    return sum;
  }
};

// Convolves rows `first` to `end` of a channel; `give` takes each row, counted from `first`, with its result.
template <int BATCH, class Give>
__device__ inline void convolve(const Convolution& convolution, const Branches& branches, int first, int end,
                                int channel, Give give) {
  float inputs[TAPS - 1 + BATCH];
#pragma unroll 1
  for (int row = first; row < end; row += BATCH) {
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      inputs[TAPS - 1 + i] = row + i < end ? branches.own_x(row + i, channel) : 0.f;
    }
    if (row == first) {
      // Asked for last: the state's address has to be waited for.
#pragma unroll
      for (int i = 0; i < TAPS - 1; i++) inputs[i] = branches.x(first + i - (TAPS - 1), channel);
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      if (row + i < end) give(row + i - first, convolution.of(inputs + i));
    }
#pragma unroll
    for (int i = 0; i < TAPS - 1; i++) inputs[i] = inputs[BATCH + i];
  }
}

// A step of the recurrence: h = a h + b.
struct Step {
  float a, b;
};

// The step of an input with these gates, biases included; the first of a sequence forgets everything.
__device__ inline Step rg_lru_step(float x, float input_gate, float recurrence_gate, float decay,
                                   bool first) {
  const float gated = x * sigmoid(input_gate);
  if (first) return {0.f, gated};
  // a - 1, exact where a is close to 1: there are the channels with the longest memory.
  const float below_one = expm1f(decay * sigmoid(recurrence_gate));
  const float a = 1.f + below_one;
  // 1 - a^2 = (1 - a) (1 + a)
  return {a, sqrtf(-below_one * (1.f + a)) * gated};
}

// Writes a channel of a state behind a row of the pass, with recurrence `h`.
__device__ inline void leave(float* to, int row, const Branches& branches, float h, int channel) {
  to[channel] = h;
  const int oldest = row - (branches.taps - 2);
  for (int k = 0; k < branches.taps - 1; k++) {
    to[size_t(k + 1) * branches.width + channel] = branches.x(oldest + k, channel);
  }
}
