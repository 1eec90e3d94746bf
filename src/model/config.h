// config.json and generation_config.json of a model directory, read into data.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/status.h"
#include "model/families/families.h"
#include "model/spec.h"

namespace sluice {

// How quantization_config says that linear weights are stored. The tensors are self-describing;
// this only has to agree with them.
enum class QuantMethod { kNone, kFp8, kMxfp4 };
struct QuantizationConfig {
  QuantMethod method = QuantMethod::kNone;
  int64_t block_n = 128, block_k = 128;  // fp8 scale blocks
};

struct ModelConfig {
  ModelSpec spec;
  QuantizationConfig quantization;
  const Family* family = nullptr;
};
Result<ModelConfig> read_model_config(const std::string& model_dir);
// The same from the parsed file; `where` names it in messages.
Result<ModelConfig> parse_model_config(const nlohmann::json& config, const std::string& where);
Result<GenerationDefaults> parse_generation_defaults(const nlohmann::json& config,
                                                     const std::string& where,
                                                     const ModelSpec& spec);

}  // namespace sluice
