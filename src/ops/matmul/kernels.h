// Declares every row of kernels.inc.
#pragma once

#include "ops/matmul/panels.h"

namespace sluice {

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) extern const PanelKernel name;
#include "ops/matmul/kernels.inc"
#undef SLUICE_KERNEL

// The references' store, for every arith.
void store_tile_reference(const PanelTile& tile);

}  // namespace sluice
