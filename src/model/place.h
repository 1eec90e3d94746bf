// Placing weights: what was packed on the host moves to the device that runs steps.
#pragma once

#include "model/model.h"

namespace sluice {

// The same matrix on `device`; as it is when that is the CPU.
Result<PackedMatrix> place(Device& device, PackedMatrix packed, std::string_view what);

}  // namespace sluice
