#include "model/families/families.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

namespace sluice {

using nlohmann::json;

std::span<const Family* const> families() {
  static constexpr std::array kFamilies = {&kGemma4, &kGptOss, &kQwen3Moe};
  return kFamilies;
}

const Family* find_family(std::string_view model_type) {
  for (const Family* f : families())
    if (f->model_type == model_type || f->text_model_type == model_type) return f;
  return nullptr;
}

std::string known_model_types() {
  std::string names;
  for (const Family* f : families()) {
    if (!names.empty()) names += ", ";
    names += f->model_type;
    if (f->text_model_type != f->model_type) names += fmt::format(", {}", f->text_model_type);
  }
  return names;
}

void read_decoder(ConfigReader& config, ModelSpec& spec, double eps, bool tied) {
  spec.d = config.integer({"hidden_size"}, 1, 1 << 20);
  spec.vocabulary = config.integer({"vocab_size"}, 1, 1 << 20);
  spec.context = config.integer({"max_position_embeddings"}, 1, INT32_MAX);
  spec.eps = static_cast<float>(config.number({"rms_norm_eps"}, 1e-12, 1.0, eps));
  spec.tied_head = config.boolean({"tie_word_embeddings"}, tied);
  spec.layers.resize(static_cast<size_t>(config.integer({"num_hidden_layers"}, 1, 1000)));
  const std::vector<int64_t> bos = config.integers({"bos_token_id"}, -1, INT32_MAX);
  if (!bos.empty() && bos.front() < spec.vocabulary) spec.bos_id = static_cast<int32_t>(bos[0]);
}

Activation read_activation(ConfigReader& config, FieldNames names) {
  const std::string name = config.text(names, "");
  const std::optional<ActivationKind> kind = activation_from_name(name);
  // swiglu_oai is no name of a config's: gpt_oss says silu and means it.
  if (!kind || *kind == ActivationKind::kSwigluOai)
    config.fail(fmt::format("{}: expected silu, gelu or gelu_pytorch_tanh, got {}", *names.begin(),
                            json(name).dump(-1, ' ', true, json::error_handler_t::replace)));
  Activation activation;
  activation.kind = kind.value_or(ActivationKind::kSilu);
  return activation;
}

std::vector<bool> read_sliding_layers(ConfigReader& config, size_t layers, bool (*absent)(size_t)) {
  std::vector<bool> sliding(layers);
  for (size_t l = 0; l < layers; ++l) sliding[l] = absent(l);
  if (!config.has({"layer_types"})) return sliding;
  const std::vector<std::string> types = config.texts({"layer_types"});
  if (types.size() != layers) {
    config.fail(fmt::format("layer_types: expected {} entries (num_hidden_layers), got {}", layers,
                            types.size()));
    return sliding;
  }
  for (size_t l = 0; l < layers; ++l) {
    sliding[l] = types[l] == "sliding_attention";
    if (!sliding[l] && types[l] != "full_attention")
      config.fail(
          fmt::format("layer_types[{}]: expected sliding_attention or full_attention, got {}", l,
                      json(types[l]).dump(-1, ' ', true, json::error_handler_t::replace)));
  }
  return sliding;
}

namespace {

constexpr double kMinTheta = 1.001, kMaxTheta = 1e12;

// The object that describes the rope of `layer_type`, and where it stands; null when absent.
const json* rope_object(ConfigReader& config, std::string_view layer_type, std::string* name) {
  const json* object = config.find({"rope_parameters"});
  *name = "rope_parameters";
  if (object == nullptr) {
    object = config.find({"rope_scaling"});
    *name = "rope_scaling";
  }
  if (object == nullptr) return nullptr;
  if (!object->is_object()) {
    config.fail(fmt::format("{}: expected an object, got {}", *name, brief_json(*object)));
    return nullptr;
  }
  const bool nested = object->contains("full_attention") || object->contains("sliding_attention");
  if (!nested) return object;
  *name += fmt::format(".{}", layer_type);
  const auto it = object->find(layer_type);
  if (it == object->end() || !it->is_object()) {
    config.fail(fmt::format("{}: expected an object, got {}", *name,
                            it == object->end() ? "nothing" : brief_json(*it)));
    return nullptr;
  }
  return &*it;
}

YarnParameters read_yarn(ConfigReader& rope, int64_t context) {
  YarnParameters yarn;
  yarn.factor = rope.number({"factor"}, 1e-3, 1e6);
  yarn.beta_fast = rope.number({"beta_fast"}, 1e-6, 1e6, 32.0);
  yarn.beta_slow = rope.number({"beta_slow"}, 1e-6, 1e6, 1.0);
  yarn.truncate = rope.boolean({"truncate"}, true);
  yarn.original_context =
      rope.number({"original_max_position_embeddings"}, 1, 1e9, static_cast<double>(context));
  const auto optional = [&](std::string_view name) -> std::optional<double> {
    if (!rope.has({name})) return std::nullopt;
    return rope.number({name}, 0, 1e6);
  };
  yarn.attention_factor = optional("attention_factor");
  yarn.mscale = optional("mscale");
  yarn.mscale_all_dim = optional("mscale_all_dim");
  return yarn;
}

}  // namespace

RopeSpec read_rope(ConfigReader& config, std::string_view layer_type, int64_t head_size,
                   int64_t context, const RopeDefaults& absent) {
  const double outer_theta = config.number({"rope_theta"}, kMinTheta, kMaxTheta, absent.theta);
  std::string name;
  const json* object = rope_object(config, layer_type, &name);
  if (object == nullptr)
    return absent.yarn ? yarn_rope(head_size, outer_theta, absent.parameters)
                       : proportional_rope(head_size, outer_theta, absent.rotary_factor, 1.0);
  ConfigReader rope(*object, nullptr, fmt::format("{}: {}", config.where(), name));
  const double theta = rope.number({"rope_theta"}, kMinTheta, kMaxTheta, outer_theta);
  const std::string type = rope.text({"rope_type", "type"}, "default");
  const double part = rope.number({"partial_rotary_factor"}, 1e-6, 1.0, 1.0);
  RopeSpec spec = plain_rope(head_size, theta);
  if (type == "proportional") {
    spec = proportional_rope(head_size, theta, part, rope.number({"factor"}, 1e-3, 1e6, 1.0));
  } else if (part != 1.0) {
    rope.fail(
        fmt::format("partial_rotary_factor: expected 1 with rope_type {}, got {}", type, part));
  } else if (type == "linear") {
    spec = proportional_rope(head_size, theta, 1.0, rope.number({"factor"}, 1e-3, 1e6));
  } else if (type == "yarn") {
    spec = yarn_rope(head_size, theta, read_yarn(rope, context));
  } else if (type != "default") {
    rope.fail(fmt::format("rope_type: expected default, linear, yarn or proportional, got {}",
                          json(type).dump(-1, ' ', true, json::error_handler_t::replace)));
  }
  config.take(rope.status());
  return spec;
}

void read_layer_geometry(ConfigReader& config, ModelSpec& spec, int64_t kv_heads,
                         int64_t head_size) {
  const json* all = config.find({"per_layer_config"});
  if (all == nullptr) return;
  if (!all->is_object()) return config.fail("per_layer_config: expected an object");
  for (const auto& item : all->items()) {
    const std::string where = fmt::format("{}: per_layer_config: {}", config.where(), item.key());
    size_t l = spec.layers.size();
    const char* end = item.key().data() + item.key().size();
    const auto parsed = std::from_chars(item.key().data(), end, l);
    if (parsed.ec != std::errc() || parsed.ptr != end || l >= spec.layers.size() ||
        !item.value().is_object())
      return config.take(invalid_argument("{}: expected a layer's index below {} and an object",
                                          where, spec.layers.size()));
    for (const auto& field : item.value().items())
      if (field.key() != "head_dim" && field.key() != "num_key_value_heads")
        return config.take(invalid_argument("{}: {}: expected head_dim or num_key_value_heads",
                                            where, field.key()));
    ConfigReader layer(item.value(), nullptr, where);
    spec.layers[l].attention.kv_heads = layer.integer({"num_key_value_heads"}, 1, 1024, kv_heads);
    spec.layers[l].attention.head_size = layer.integer({"head_dim"}, 2, 1024, head_size);
    config.take(layer.status());
  }
}

int add_rope(ConfigReader& config, ModelSpec& spec, std::string_view layer_type, int64_t head_size,
             const RopeDefaults& absent) {
  RopeSpec rope = read_rope(config, layer_type, head_size, spec.context, absent);
  for (size_t r = 0; r < spec.ropes.size(); ++r)
    if (spec.ropes[r].inv_freq == rope.inv_freq && spec.ropes[r].factor == rope.factor)
      return static_cast<int>(r);
  spec.ropes.push_back(std::move(rope));
  return static_cast<int>(spec.ropes.size()) - 1;
}

}  // namespace sluice
