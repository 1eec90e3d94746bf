// What a rounding profile needs of a loaded model.
#pragma once

#include "model/model.h"

namespace sluice {

// Sets the model's profile, once per load, and unfolds the scale of routers whose norm it rounds.
// Errors: a profile other than f32 for a model without expert layers.
Status apply_profile(Device& device, const RoundingProfile& profile, Model& model,
                     const std::string& path);

}  // namespace sluice
