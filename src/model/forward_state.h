// The buffers behind ForwardState: every array that forward writes, sized for the largest step.
#pragma once

#include <memory>
#include <vector>

#include "model/forward.h"

namespace sluice {

struct ForwardState::Impl {
  int64_t max_tokens = 0, max_logit_rows = 0;
  int64_t logit_rows = 0;  // of the last step
  int64_t vocabulary = 0;

  std::vector<Buffer> buffers;  // own everything below
  float* hidden = nullptr;      // [T, D] the residual stream
  float* normed = nullptr;      // [T, D] input of the branch at hand
  float* branch = nullptr;      // [T, D] output of the branch at hand
  float* second = nullptr;      // [T, D] the expert branch, where it runs beside a dense one
  float *q = nullptr, *k = nullptr, *v = nullptr,
        *mixed = nullptr;            // [T, H*C], [T, G*C] x2, [T, H*C]
  float* units = nullptr;            // [T, I] of dense layers
  float* router_logits = nullptr;    // [T, E]
  float* expert_weights = nullptr;   // [T, K]
  int32_t* expert_ids = nullptr;     // [T, K]
  int32_t* expert_starts = nullptr;  // [E+1], and the other two [T*K]: the pairs sorted
  int32_t *pair_source = nullptr, *pair_inverse = nullptr;
  int32_t* every_row = nullptr;   // 0, 1, 2 ...: a dense layer is a group of one expert
  int32_t* row_ranges = nullptr;  // {0, t} for every t up to max_tokens
  std::vector<float*> cos_sin;    // per rope: [T, C/2, 2]
  float* logits = nullptr;        // [rows, V]
  Workspace workspace;
  int64_t most_experts = 0;
  int64_t* expert_counts = nullptr;  // [layers, most_experts]
  std::vector<int64_t> experts;      // per layer; 0: dense
  RouteSortStats routes;
  Device* device = nullptr;

  // What a tap is shown of a device's memory.
  std::vector<float> shown_values;
  std::vector<int32_t> shown_ids;
  // `count` values where the host can read them: in place, or in `copy` after the work so far.
  template <class T>
  Result<const T*> host_copy(const ExecContext& context, const T* values, int64_t count,
                             std::vector<T>& copy) const {
    if (device->kind() == DeviceKind::kCpu) return values;
    copy.resize(static_cast<size_t>(count));
    if (context.stream != nullptr) SLUICE_RETURN_IF_ERROR(context.stream->synchronize());
    SLUICE_RETURN_IF_ERROR(device->download(copy.data(), reinterpret_cast<const std::byte*>(values),
                                            copy.size() * sizeof(T), nullptr));
    return static_cast<const T*>(copy.data());
  }
};

}  // namespace sluice
