// What `sluice inspect` found, for people.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cli/console.h"

namespace sluice {

// `report` is the object that --json prints.
void print_inspection(const nlohmann::ordered_json& report, Console& console);

}  // namespace sluice
