// What a packed store holds, by role and by tensor: for `pack` and `inspect`.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cli/console.h"
#include "weights/store_format.h"

namespace sluice {

// Per role: parameters, bytes, bits per weight, and the formats, layouts and ariths in use, with
// the relative RMS error and the signal-to-noise ratio (dB) of what packing lost.
nlohmann::ordered_json store_roles_json(const StoreHeader& header, Mode mode = Mode::kDefault);
// One object per tensor, the same fields. Null errors: nothing was lost.
nlohmann::ordered_json store_tensors_json(const StoreHeader& header, Mode mode = Mode::kDefault);
// One row per role of store_roles_json().
void print_store_roles(const nlohmann::ordered_json& roles, Console& console);

}  // namespace sluice
