// The CPU's way to the K largest of a row: a scan appends candidates above a rising threshold.
#pragma once

#include <cstdint>

#include "ops/topk/kernels.h"

namespace sluice {

// Candidates of one row. A key enters when it is greater than `floor`; `threshold` is floor's value
// as a float, for comparing sixteen at a time.
struct TopkBuffer {
  uint64_t* keys = nullptr;
  int64_t count = 0, capacity = 0;
  uint64_t floor = 0;
  float threshold = 0.0f;
  bool strict = false;  // only values greater than the threshold can enter (else: not less)
};
// Appends the candidates of x[begin, end) in order; returns where it stopped: at end, or before it
// when fewer than kTopkRoom keys are free.
inline constexpr int64_t kTopkRoom = 64;
using TopkScan = int64_t(const float* x, int64_t begin, int64_t end, TopkBuffer& buffer);

void select_topk(TopkScan* scan, const TopkRows& rows);

}  // namespace sluice
