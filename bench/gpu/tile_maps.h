// Where the matrix units keep their operands: register fragments, shared-memory tiles, descriptors.
//
// Everything is __host__ __device__, so that tile_maps_test.cc walks every lane and every byte on
// the host; the probes call these very functions. Written after the PTX ISA (sections on
// mma.m16n8k16, wgmma.mma_async's fragments and matrix descriptor, and the swizzling modes of
// cp.async.bulk.tensor). Columns along k are counted in bytes: k16 of bf16 and k32 of e4m3 are both
// 32 bytes, so one map serves both.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace sluice::probe {

struct Place {
  int row, column;
};

constexpr int kStepBytes = 32;  // of k that one matrix instruction takes

// mma.sync m16n8, f32 accumulators: register i (0..3) of a lane.
SLUICE_HD constexpr Place mma_accumulator(int lane, int i) {
  return {lane / 4 + (i / 2) * 8, (lane % 4) * 2 + i % 2};
}
// Operand A (16 rows): register i (0..3) holds the 4 bytes from this column on.
SLUICE_HD constexpr Place mma_a(int lane, int i) {
  return {lane / 4 + (i % 2) * 8, (lane % 4) * 4 + (i / 2) * 16};
}
// Operand B, stored as 8 rows of n: register i (0..1) holds the 4 bytes from this column on.
SLUICE_HD constexpr Place mma_b(int lane, int i) {
  return {lane / 4, (lane % 4) * 4 + i * 16};
}

// wgmma m64nN, f32 accumulators: register i (0..N/2-1) of thread 0..127 of the warpgroup.
SLUICE_HD constexpr Place wgmma_accumulator(int thread, int i) {
  const Place in_warp = mma_accumulator(thread % 32, i % 4);
  return {(thread / 32) * 16 + in_warp.row, (i / 4) * 8 + in_warp.column};
}
// Operand A in registers: register i (0..3).
SLUICE_HD constexpr Place wgmma_a(int thread, int i) {
  const Place in_warp = mma_a(thread % 32, i);
  return {(thread / 32) * 16 + in_warp.row, in_warp.column};
}

// Shared memory without swizzle: core matrices of 8 rows x 16 bytes, each 128 contiguous bytes. The
// two of one k step stand side by side (leading offset), groups of 8 rows follow (stride offset).
constexpr int kCoreBytes = 128;
constexpr int kPlainLeading = kCoreBytes, kPlainStride = 2 * kCoreBytes;
SLUICE_HD constexpr int plain_offset(int row, int byte) {
  return (row / 8) * kPlainStride + (byte / 16) * kPlainLeading + (row % 8) * 16 + byte % 16;
}

// Shared memory with 128-byte swizzle: rows of 128 bytes, whose eight 16-byte pieces are exchanged
// by the row's number within its group of 8. The tile starts at a multiple of 1024.
constexpr int kSwizzleRow = 128, kSwizzleStride = 8 * kSwizzleRow;
SLUICE_HD constexpr int swizzle128(int offset) {
  return offset ^ ((offset >> 3) & 0x70);
}
SLUICE_HD constexpr int swizzled_offset(int row, int byte) {
  return swizzle128(row * kSwizzleRow + byte);
}

// wgmma's matrix descriptor. Addresses and offsets in bytes, multiples of 16 below 2^18.
enum class Swizzle : uint64_t { kNone = 0, k128 = 1, k64 = 2, k32 = 3 };
SLUICE_HD constexpr uint64_t wgmma_descriptor(uint32_t address, uint32_t leading, uint32_t stride,
                                              Swizzle swizzle) {
  const auto field = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3ffffu) >> 4); };
  return field(address) | (field(leading) << 16) | (field(stride) << 32) |
         (static_cast<uint64_t>(swizzle) << 62);
}

}  // namespace sluice::probe
