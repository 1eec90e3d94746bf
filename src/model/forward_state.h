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
        *mixed = nullptr;           // [T, H*C], [T, G*C] x2, [T, H*C]
  float* units = nullptr;           // [T, I] of dense layers
  float* router_logits = nullptr;   // [T, E]
  float* expert_weights = nullptr;  // [T, K]
  int32_t* expert_ids = nullptr;    // [T, K]
  int32_t* every_row = nullptr;     // 0, 1, 2 ...: a dense layer is a group of one expert
  int32_t* row_range = nullptr;     // {0, T}
  std::vector<float*> cos_sin;      // per rope: [T, C/2, 2]
  float* logits = nullptr;          // [rows, V]
  Workspace workspace;
  std::vector<std::vector<int64_t>> expert_counts;
};

}  // namespace sluice
