// The rows of kernels.inc.
#pragma once

#include <span>

#include "ops/kernel_table.h"
#include "ops/moe_sort/moe_sort.h"

namespace sluice {

using MoeSortKernel = void(const MoeSortArgs& args);
std::span<const Kernel<MoeSortKernel>> moe_sort_kernels();

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) void name(const MoeSortArgs& args);
#include "ops/moe_sort/kernels.inc"
#undef SLUICE_KERNEL

}  // namespace sluice
