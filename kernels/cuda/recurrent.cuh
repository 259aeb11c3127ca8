// What the kernels of Griffin's recurrent block share (De et al. 2024): what they read, the convolution's taps, a step
// of the recurrence, and the states that a pass leaves.
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

// The states of a sequence that a pass goes on from and leaves behind. In each the layer's numbers begin at `offset`:
// the recurrence's [width], then the convolution's last inputs [taps - 1, width], oldest first.
struct States {
  const uint64_t* addresses;  // of the one that it goes on from, then of those that it leaves
  const int* kept;            // how many it leaves, then the row that each stands behind, ascending
  int offset;

  __device__ const float* from() const { return reinterpret_cast<const float*>(addresses[0]) + offset; }
  __device__ float* left(int i) const { return reinterpret_cast<float*>(addresses[1 + i]) + offset; }
  __device__ int count() const { return kept[0]; }
  __device__ int row(int i) const { return kept[1 + i]; }
};

// What a pass's rows bring, and what came before them.
struct Branches {
  const float* xy;      // [rows, 2 * width], the x branch first
  const float* before;  // the state to go on from; null where the sequence begins
  int width, taps;

  // The convolution's input at a row of the pass, or before it.
  __device__ float x(int row, int channel) const {
    if (row >= 0) return xy[size_t(row) * 2 * width + channel];
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

// A step of the recurrence: h = a h + b.
struct Step {
  float a, b;
};

// The step that an input takes whose gates, biases included, are these; the first of a sequence forgets everything.
__device__ inline Step rg_lru_step(float x, float input_gate, float recurrence_gate, float decay, bool first) {
  const float gated = x * sigmoid(input_gate);
  if (first) return {0.f, gated};
  // a - 1, exact where a is close to 1: there are the channels with the longest memory.
  const float below_one = expm1f(decay * sigmoid(recurrence_gate));
  const float a = 1.f + below_one;
  // 1 - a^2 = (1 - a) (1 + a)
  return {a, sqrtf(-below_one * (1.f + a)) * gated};
}

// Writes a channel of the `i`th state that the pass leaves, with recurrence `h`.
__device__ inline void leave(const States& states, int i, const Branches& branches, float h, int channel) {
  float* to = states.left(i);
  to[channel] = h;
  const int oldest = states.row(i) - (branches.taps - 2);
  for (int k = 0; k < branches.taps - 1; k++) {
    to[size_t(k + 1) * branches.width + channel] = branches.x(oldest + k, channel);
  }
}
