// Whether a model has weights that its mode is for (tensor/arith.h:Mode).
#pragma once

#include "model/model.h"

namespace sluice {

Status check_mode(const Model& model, const std::string& path);

}  // namespace sluice
