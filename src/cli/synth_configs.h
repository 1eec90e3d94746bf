// config.json and generation_config.json of the published models that `sluice synth` imitates.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace sluice {

struct SynthConfig {
  nlohmann::ordered_json config, generation;
};
// Nothing for an unknown name.
std::optional<SynthConfig> synth_config(const std::string& family, int64_t layers, bool tiny);

}  // namespace sluice
