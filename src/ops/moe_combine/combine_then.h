// What follows the weighted sum, and how it is rounded, as data: light enough for kernels to
// include.
#pragma once

#include "base/host_device.h"

namespace sluice {

enum class CombineThen { kStore, kResidualAdd, kRmsNorm, kResidualThenNorm, kBranches };

// kSlot: ascending slot, which is ascending expert in the CSR order of moe_sort.
enum class CombineOrder { kChoice, kSlot };

// Where bf16 roundings (nearest even) stand in the weighted sum; none: f32 throughout.
struct CombineRounding {
  bool rows = false;      // the expert rows, as a product stored in bf16 gives them
  bool weights = false;   // the router's weights
  bool products = false;  // w * y; implies that it is not fused with the addition
  bool sums = false;      // the running sum, after each term
  bool result = false;    // the sum, before what follows it
  bool fused = true;      // acc = fma(w, y, acc); else acc + f32(w * y)
  CombineOrder order = CombineOrder::kChoice;
};

// The default: acc = fma(w, y, acc) in f32, ascending k. Static: kernels of several ISAs include
// this.
SLUICE_HD static inline bool is_plain(const CombineRounding& r) {
  return !r.rows && !r.weights && !r.products && !r.sums && !r.result && r.fused &&
         r.order == CombineOrder::kChoice;
}

}  // namespace sluice
