// The weight formats that our side can run, one row each: adding a format is adding its row.
#pragma once

#include <string>

#include "base/status.h"
#include "tensor/arith.h"
#include "weights/packed.h"

namespace sluice {
class Device;
}

namespace peers {

struct Format {
  const char* name;     // --weights
  sluice::Arith arith;  // its default
  const char* mode;     // the mode by its name
  const char* unit;     // the rate of rates.h that bounds its arithmetic
  sluice::Result<sluice::PackedMatrix> (*pack)(sluice::Device& device, const float* w, int64_t n,
                                               int64_t k);
  sluice::Result<sluice::PackedMatrix> (*pack_glu)(sluice::Device& device, const float* gate,
                                                   const float* up, int64_t i, int64_t k);
};
// nullptr: not there (yet).
const Format* find_format(const std::string& name);

}  // namespace peers
