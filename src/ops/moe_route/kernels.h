// The rows of kernels.inc and what they take.
#pragma once

#include <cstdint>
#include <span>

#include "ops/moe_route/rule.h"

namespace sluice {

class Stream;  // device/device.h

inline constexpr int64_t kMaxExperts = 4096;
inline constexpr int64_t kMaxExpertsPerToken = 64;

// Tokens [begin, end).
struct MoeRouteTask {
  const void* logits = nullptr;  // [T, E] of the row's dtype, and S more columns of shared experts
  int64_t stride = 0;
  int64_t experts = 0, k = 0;
  RouteRule rule;
  const float* selection_bias = nullptr;
  const float* per_expert_scale = nullptr;
  int32_t* ids = nullptr;  // [T, K+S]
  float* weights = nullptr;
  int64_t out_stride = 0;
  int64_t begin = 0, end = 0;
  // CUDA only, whose rows return no counts: where to add them, and which tokens are there.
  int64_t* non_finite_rows = nullptr;
  int64_t* zero_rows = nullptr;
  const int32_t* live_tokens = nullptr;
  Stream* stream = nullptr;
};
struct RouteCounts {
  int64_t non_finite_rows = 0, zero_rows = 0;
};
using MoeRouteKernel = RouteCounts(const MoeRouteTask& task);
template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<MoeRouteKernel>> moe_route_kernels();

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) MoeRouteKernel name;
#include "ops/moe_route/kernels.inc"
#undef SLUICE_KERNEL

}  // namespace sluice
