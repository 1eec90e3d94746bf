// Whether there are weights that a mode is for (tensor/arith.h:Mode).
#pragma once

#include <set>

#include "model/model.h"

namespace sluice {

Status check_mode(Mode mode, const std::set<WeightFormat>& formats, const std::string& path);
// The same for a model's own.
Status check_mode(const Model& model, const std::string& path);

}  // namespace sluice
