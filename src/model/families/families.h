// The model families: each maps config.json to a ModelSpec and names its tensors. Adding a family
// is one file with two functions and a line in families.cc.
#pragma once

#include <span>
#include <string_view>

#include "model/config_reader.h"
#include "model/spec.h"
#include "model/tensor_table.h"

namespace sluice {

struct Family {
  std::string_view model_type;       // as config.json says
  std::string_view text_model_type;  // of a nested or text-only config; may equal model_type
  // Fills the spec; what is wrong is remembered in the reader.
  void (*read)(ConfigReader& config, ModelSpec& spec);
  void (*declare)(const ModelSpec& spec, TensorTable& table);
};

extern const Family kQwen3Moe, kGemma4, kGptOss;
std::span<const Family* const> families();
// nullptr when unknown.
const Family* find_family(std::string_view model_type);
// "gemma4, gpt_oss, qwen3_moe": for messages.
std::string known_model_types();

// What decoders have in common: sizes, context, eps, token ids, tied head, layer count. `eps` and
// `tied` are what absent fields mean.
void read_decoder(ConfigReader& config, ModelSpec& spec, double eps, bool tied);
// The activation of a field like hidden_act by its exact name.
Activation read_activation(ConfigReader& config, FieldNames names);
// layer_types, one per layer; when absent, `absent` decides. true = sliding window.
std::vector<bool> read_sliding_layers(ConfigReader& config, size_t layers, bool (*absent)(size_t));
// per_layer_config: the geometry of single layers, keyed by the layer's index ("05"). What an entry
// lacks is kv_heads and head_size.
void read_layer_geometry(ConfigReader& config, ModelSpec& spec, int64_t kv_heads,
                         int64_t head_size);
// The rope of one layer type ("full_attention"): rope_parameters (flat or per layer type), else
// rope_theta + rope_scaling. `absent` is taken when neither says anything but perhaps a theta.
struct RopeDefaults {
  double theta = 10000.0;
  double rotary_factor = 1.0;  // below 1: proportional
  bool yarn = false;
  YarnParameters parameters;
};
RopeSpec read_rope(ConfigReader& config, std::string_view layer_type, int64_t head_size,
                   int64_t context, const RopeDefaults& absent);

// read_rope, with default parameters, added to the spec unless an equal one is there: its index.
int add_rope(ConfigReader& config, ModelSpec& spec, std::string_view layer_type, int64_t head_size,
             const RopeDefaults& absent = {});

}  // namespace sluice
