// Tensor cores: products of fragments, and how fragments are loaded from shared memory.
#pragma once
#include <cstdint>

#include "site.h"

namespace emulation {

void mma(float* d, const uint32_t* a, const uint32_t* b, Site site);
void mma_half(float* d, const uint32_t* a, const uint32_t* b, Site site);
void load_matrix(uint32_t* registers, const void* row, int count, bool transposed, Site site);

}  // namespace emulation

inline void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                      emulation::Site site = emulation::Site::here()) {
  emulation::mma(d, a, b, site);
}
inline void mma_16816_half(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                           emulation::Site site = emulation::Site::here()) {
  emulation::mma_half(d, a, b, site);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, emulation::Site site = emulation::Site::here()) {
  emulation::load_matrix(r, row, 4, false, site);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row,
                              emulation::Site site = emulation::Site::here()) {
  emulation::load_matrix(r, row, 4, true, site);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, emulation::Site site = emulation::Site::here()) {
  emulation::load_matrix(r, row, 2, false, site);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row,
                              emulation::Site site = emulation::Site::here()) {
  emulation::load_matrix(r, row, 2, true, site);
}
