// Experts whose weights are not prefused: every step packs those that it needs from f32 matrices,
// gate and up apart as a checkpoint has them, before it can multiply (what prefusing saves).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cli/synthetic_experts.h"

namespace sluice {

class RawExperts {
 public:
  RawExperts(const ExpertShape& shape, const SyntheticFormat& format, uint64_t seed);
  // Packs the distinct experts of ids in parallel; the result lives until the next call.
  Result<ExpertWeights> prefuse(Device& device, ThreadPool& pool, std::span<const int32_t> ids);

 private:
  ExpertShape shape_;
  const SyntheticFormat& format_;
  std::vector<float> gate_, up_, down_, bias_;  // one content stands for all: time is the same
  std::vector<PackedMatrix> packed_up_, packed_down_;
  std::vector<const PackedMatrix*> up_ptrs_, down_ptrs_;
  std::vector<const float*> bias_ptrs_;
};

}  // namespace sluice
