// The weights of an expert layer in the form that the kernels stream.
#pragma once

#include <vector>

#include "machine.h"
#include "weights/packed.h"

namespace sluice::python {

class PackedExperts {
 public:
  std::vector<PackedMatrix> gate_up, down;
  std::vector<std::vector<float>> gate_up_bias, down_bias;
  int64_t d = 0, width = 0;
  WeightFormat format = WeightFormat::kBF16;

  size_t bytes() const {
    size_t total = 0;
    for (const auto* side : {&gate_up, &down})
      for (const PackedMatrix& m : *side) total += m.bytes;
    return total;
  }
};

// PackedExperts and pack_experts.
void add_pack_experts(py::module_& m, Machine& machine);

}  // namespace sluice::python
