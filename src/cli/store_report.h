// What a packed store holds, or a directory's model once loaded, by role and by tensor: for `pack`
// and `inspect`.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cli/console.h"
#include "weights/store_format.h"

namespace sluice {

// Per role: parameters, bytes, bits per weight, and the formats, layouts and ariths in use, with
// the relative RMS error and the signal-to-noise ratio (dB) of what packing lost.
nlohmann::ordered_json store_roles_json(const StoreHeader& header, Mode mode = Mode::kDefault,
                                        bool bf16_dot = false);
// The same, without the errors, of the plan by which a directory would be packed as it is loaded
// for the compute mode.
nlohmann::ordered_json loaded_roles_json(StoreHeader plan, Compute compute, Mode mode,
                                         bool bf16_dot);
// One object per tensor, the same fields. Null errors: nothing was lost.
nlohmann::ordered_json store_tensors_json(const StoreHeader& header, Mode mode = Mode::kDefault,
                                          bool bf16_dot = false);
// One row per role of the above.
void print_store_roles(const nlohmann::ordered_json& roles, Console& console);

}  // namespace sluice
