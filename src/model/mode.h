// Which arith a model's product follows, and whether there are weights that a choice is for
// (tensor/arith.h:Mode).
#pragma once

#include <set>

#include "model/model.h"

namespace sluice {

// panel_arith (ops/matmul/panels.h), with bf16_dot in place of bf16_tile where the format has it.
Arith product_arith(WeightFormat format, Compute compute, Mode mode, bool bf16_dot);
Status check_mode(Mode mode, const std::set<WeightFormat>& formats, const std::string& path);
// The same for bf16_dot.
Status check_bf16_dot(Compute compute, Mode mode, const std::set<WeightFormat>& formats,
                      const std::string& path);
// Both for a model's own.
Status check_mode(const Model& model, const std::string& path);
// Whether the ISA has a kernel for each of its products; kUnimplemented names one that it lacks.
Status check_kernels(Isa isa, const Model& model, const std::string& path);

}  // namespace sluice
