// Products of fragments, a warp at a time. See "Matrix Fragments for mma.m16n8k16" in the PTX manual for who
// holds what.
#include "tensor.h"

#include <cstring>

#include "numbers.h"
#include "scheduler.h"

namespace emulation {
namespace {

constexpr int M = 16, N = 8, K = 16;

struct Fragments {
  float* d;
  const uint32_t *a, *b;
};

// Rows of the product; compilers without such registers take it apart.
typedef float Row __attribute__((vector_size(4 * N)));

float bfloat_of(uint32_t two, int which) { return of_bfloat(uint16_t(two >> 16 * which)); }
float half_of(uint32_t two, int which) { return of_half(uint16_t(two >> 16 * which)); }

template <float number_of(uint32_t, int)> void multiply(void** brought, unsigned) {
  float a[M][K];
  Row b[K], d[M];
  for (int lane = 0; lane < 32; lane++) {
    const auto* mine = static_cast<Fragments*>(brought[lane]);
    const int group = lane >> 2, pair = 2 * (lane & 3);
    for (int which = 0; which < 2; which++) {
      for (int i = 0; i < 4; i++)
        a[group + i % 2 * 8][pair + i / 2 * 8 + which] = number_of(mine->a[i], which);
      for (int i = 0; i < 2; i++) b[pair + i * 8 + which][group] = number_of(mine->b[i], which);
      for (int i = 0; i < 2; i++) d[group + i * 8][pair + which] = mine->d[2 * i + which];
    }
  }
  for (int m = 0; m < M; m++) {
    Row sum = {};
    for (int k = 0; k < K; k++) sum += a[m][k] * b[k];
    d[m] += sum;
  }
  for (int lane = 0; lane < 32; lane++) {
    float* mine = static_cast<Fragments*>(brought[lane])->d;
    for (int i = 0; i < 4; i++) mine[i] = d[(lane >> 2) + i / 2 * 8][2 * (lane & 3) + i % 2];
  }
}

struct Matrices {
  uint32_t* registers;
  const void* row;
  int count;
  bool transposed;
};

// Lanes 0 to 7 name the rows of the first matrix of 8 x 8, lanes 8 to 15 those of the second, and so on.
void load(void** brought, unsigned) {
  const Matrices first = *static_cast<Matrices*>(brought[0]);
  for (int matrix = 0; matrix < first.count; matrix++) {
    uint16_t rows[8][8];
    for (int r = 0; r < 8; r++) memcpy(rows[r], static_cast<Matrices*>(brought[8 * matrix + r])->row, 16);
    for (int lane = 0; lane < 32; lane++) {
      const int group = lane >> 2, pair = 2 * (lane & 3);
      const uint16_t low = first.transposed ? rows[pair][group] : rows[group][pair];
      const uint16_t high = first.transposed ? rows[pair + 1][group] : rows[group][pair + 1];
      static_cast<Matrices*>(brought[lane])->registers[matrix] = uint32_t(high) << 16 | low;
    }
  }
}

}  // namespace

void mma(float* d, const uint32_t* a, const uint32_t* b, Site site) {
  Fragments mine{d, a, b};
  collective(Collective::Mma, ALL, &mine, multiply<bfloat_of>, site);
}

void mma_half(float* d, const uint32_t* a, const uint32_t* b, Site site) {
  Fragments mine{d, a, b};
  collective(Collective::MmaHalf, ALL, &mine, multiply<half_of>, site);
}

void load_matrix(uint32_t* registers, const void* row, int count, bool transposed, Site site) {
  if (reinterpret_cast<uintptr_t>(row) % 16) {
    active->fail("ldmatrix at %s:%d of a row that is not aligned to 16 bytes", file_name(site), site.line);
  }
  // Rows that are not asked for belong to lanes above; theirs may be anything.
  if (active->watch && self->lane < 8 * count) {
    active->watch->access(reinterpret_cast<uint64_t>(row), 16, false, __builtin_return_address(0));
  }
  Matrices mine{registers, row, count, transposed};
  collective(Collective::LoadMatrix, ALL, &mine, load, site);
}

}  // namespace emulation
