// The rows of kernels.inc: glu epilogues of the first product that write the hidden rows as the
// second product wants them. product.out is that product's prepared segment, product.out_stride its
// padded K; epilogue_data is the Activation.
#pragma once

#include <span>

#include "ops/elementwise/activation.h"
#include "ops/matmul/panels.h"

namespace sluice {

std::span<const Kernel<PanelEpilogue>> moe_experts_epilogues();

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) void name(const PanelTile& tile);
#include "ops/moe_experts/kernels.inc"
#undef SLUICE_KERNEL

}  // namespace sluice
