// The integer tensor-core instruction mma.sync.m16n8k32: which element each lane's registers hold,
// and what a warp computes, element by element.
//
//   D[16][8] = sum over k of A[16][k] * B[k][8], 32 k, exact in int32
// A is int8; B is int8, or uint8 where MmaB says so. Maps after the PTX ISA, "Matrix fragments for
// mma.m16n8k32"; mma_test.cc walks every lane and byte of them. Kernels reach the instruction by
// warp_mma() of a block (device/block.h, device/cuda/launch.cuh).
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace sluice {

inline constexpr int kMmaRows = 16, kMmaColumns = 8, kMmaDepth = 32;

enum class MmaB { kSigned, kUnsigned };

// What a lane brings: four bytes per register, the first in the lowest bits.
struct MmaOperands {
  uint32_t a[4] = {}, b[2] = {};
};
// What a lane receives.
struct MmaSums {
  int32_t d[4] = {};
};

struct MmaPlace {
  int row, column;  // of A: row, k; of B: k, column
};
// Byte i (0..15) of a lane's registers a.
SLUICE_HD constexpr MmaPlace mma_a_place(int lane, int i) {
  return {lane / 4 + (i / 4 % 2) * 8, lane % 4 * 4 + i % 4 + i / 8 * 16};
}
// Byte i (0..7) of a lane's registers b.
SLUICE_HD constexpr MmaPlace mma_b_place(int lane, int i) {
  return {lane % 4 * 4 + i % 4 + i / 4 * 16, lane / 4};
}
// Sum i (0..3) of a lane.
SLUICE_HD constexpr MmaPlace mma_d_place(int lane, int i) {
  return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2};
}

// The instruction, for the 32 lanes of a warp.
template <MmaB kind>
inline void emulate_mma(const MmaOperands (&lanes)[32], MmaSums (&sums)[32]) {
  int32_t a[kMmaRows][kMmaDepth], b[kMmaColumns][kMmaDepth];
  const auto byte = [](const uint32_t* words, int i) {
    return words[i / 4] >> (8 * (i % 4)) & 0xff;
  };
  const auto signed_value = [](uint32_t v) { return static_cast<int32_t>(v << 24) >> 24; };
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 16; ++i) {
      const MmaPlace at = mma_a_place(lane, i);
      a[at.row][at.column] = signed_value(byte(lanes[lane].a, i));
    }
    for (int i = 0; i < 8; ++i) {
      const MmaPlace at = mma_b_place(lane, i);
      const uint32_t value = byte(lanes[lane].b, i);
      b[at.column][at.row] =
          kind == MmaB::kUnsigned ? static_cast<int32_t>(value) : signed_value(value);
    }
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const MmaPlace at = mma_d_place(lane, i);
      int32_t sum = 0;
      for (int k = 0; k < kMmaDepth; ++k) sum += a[at.row][k] * b[at.column][k];
      sums[lane].d[i] = sum;
    }
}

}  // namespace sluice
