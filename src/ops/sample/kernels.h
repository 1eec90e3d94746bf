// sample's kernels: what each is given, and the declaration of every row of kernels.inc.
//
// With m the largest adjusted logit and T the temperature, token j has
//   d_j = (m - l_j) * (1 / T)      its distance from the top; smaller is better, then lower id
//   q_j = floor(exp(-d_j) * 2^30)  its mass, an integer: sums of masses are exact in any order
// NaN and minus infinity have no distance: they are never kept. The bits of d order as integers.
#pragma once

#include <cstdint>
#include <span>

namespace sluice {

inline constexpr float kMassUnit = 1073741824.0f;  // 2^30

struct SampleView {
  const float* logits = nullptr;
  int64_t n = 0;
  float max = 0.0f;
  float inverse_temperature = 1.0f;
};
struct SampleBin {
  uint64_t mass = 0;
  int64_t count = 0;
};
// Tokens whose distance has bits in [low, low + (bins << shift)), by bits - low >> shift.
struct SampleRange {
  uint32_t low = 0;
  int bins = 0, shift = 0;
};
// Tokens nearer than `limit`, as distance bits << 32 | id.
struct SampleCandidates {
  uint64_t* keys = nullptr;
  int64_t count = 0, capacity = 0;
  float limit = 0.0f;
};
inline constexpr int64_t kSampleRoom = 16;

struct SampleDraws;  // draws.h

// A CPU row is the passes over one row of logits that the rules are made of; a CUDA row is `draw`
// alone, the whole of a batch.
struct SampleKernel {
  float (*max)(const float* x, int64_t n);  // NaN does not count; -infinity when nothing does
  int64_t (*first_equal)(const float* x, int64_t n, float value);  // n when there is none
  float (*exp_sum)(const float* x, int64_t n, float max);          // sum32; NaN counts as 0
  uint64_t (*mass)(const SampleView& view, float limit);           // of distances <= limit
  void (*histogram)(const SampleView& view, const SampleRange& range, SampleBin* bins);  // adds
  // The id of the `index`-th token at this distance, ids ascending.
  int64_t (*nth_at)(const SampleView& view, float distance, int64_t index);
  // Appends candidates of ids [begin, n) in order; returns where it stopped for want of room.
  int64_t (*collect)(const SampleView& view, int64_t begin, SampleCandidates& candidates);
  void (*draw)(const SampleDraws& draws);
};

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) extern const SampleKernel name;
#include "ops/sample/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<const SampleKernel>> sample_kernels();

}  // namespace sluice
