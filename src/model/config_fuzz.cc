// libFuzzer: bytes as config.json, as generation_config.json. A
// spec that comes out is valid and its tensor table can be declared.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/json.h"
#include "model/config.h"
#include "model/footprint.h"

namespace {

void check_config(const nlohmann::json& root) {
  const auto config = sluice::parse_model_config(root, "fuzz");
  if (!config.ok()) {
    if (config.status().message().empty()) std::abort();
    return;
  }
  if (!sluice::validate_spec(config->spec).ok()) std::abort();
  if (config->spec.layers.size() > 64) return;  // legal, only slow
  sluice::TensorTable table;
  config->family->declare(config->spec, table);
  const auto cost = sluice::footprint(config->spec, table, nullptr, sluice::Compute::kBf16);
  if (cost.parameters <= 0 || cost.active_parameters > cost.parameters) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto root = sluice::parse_json(text, "fuzz");
  if (!root.ok()) return 0;
  check_config(*root);
  sluice::ModelSpec spec;
  spec.vocabulary = 1000;
  const auto generation = sluice::parse_generation_defaults(*root, "fuzz", spec);
  if (generation.ok())
    for (int32_t id : generation->eos_ids)
      if (id < 0 || id >= spec.vocabulary) std::abort();
  return 0;
}
