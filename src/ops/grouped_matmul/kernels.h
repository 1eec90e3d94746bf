// The rows of kernels.inc: the activations that follow a tile of ops/matmul/panels.h. The products
// themselves are matmul's rows. epilogue_data is the Activation.
#pragma once

#include <span>

#include "ops/elementwise/activation.h"
#include "ops/matmul/panels.h"

namespace sluice {

std::span<const Kernel<PanelEpilogue>> glu_epilogues();

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) void name(const PanelTile& tile);
#include "ops/grouped_matmul/kernels.inc"
#undef SLUICE_KERNEL

}  // namespace sluice
