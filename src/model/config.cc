#include "model/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace sluice {

using nlohmann::json;

namespace {

constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr JsonLimits kConfigLimits{.max_values = 1'000'000};

const json* member(const json& object, std::string_view name) {
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

void read_quantization(ConfigReader& config, QuantizationConfig* quantization) {
  const json* object = config.find({"quantization_config"});
  if (object == nullptr) return;
  if (!object->is_object())
    return config.fail(
        fmt::format("quantization_config: expected an object, got {}", brief_json(*object)));
  ConfigReader q(*object, nullptr, config.where() + ": quantization_config");
  const std::string method = q.text({"quant_method"}, "");
  if (method == "mxfp4") {
    quantization->method = QuantMethod::kMxfp4;
  } else if (method == "fp8") {
    quantization->method = QuantMethod::kFp8;
    if (const std::string fmt_name = q.text({"fmt"}, "e4m3"); fmt_name != "e4m3")
      q.fail(fmt::format("fmt: expected e4m3, got {}", brief_json(json(fmt_name))));
    const std::vector<int64_t> block = q.integers({"weight_block_size"}, 1, 1 << 20);
    if (block.size() == 2) {
      quantization->block_n = block[0];
      quantization->block_k = block[1];
    } else if (!block.empty()) {
      q.fail(fmt::format("weight_block_size: expected 2 numbers, got {}", block.size()));
    }
  } else {
    q.fail(fmt::format("quant_method: expected fp8 or mxfp4, got {}", brief_json(json(method))));
  }
  config.take(q.status());
}

// Appends ids that the vocabulary has and the list has not.
void add_ids(const std::vector<int64_t>& ids, int64_t vocabulary, std::vector<int32_t>* out) {
  for (int64_t id : ids) {
    const auto small = static_cast<int32_t>(id);
    if (id < vocabulary && std::find(out->begin(), out->end(), small) == out->end())
      out->push_back(small);
  }
}

}  // namespace

Result<ModelConfig> parse_model_config(const json& root, const std::string& where) {
  if (!root.is_object())
    return invalid_argument("{}: expected an object, got {}", where, brief_json(root));
  const json* type = member(root, "model_type");
  if (type == nullptr || !type->is_string())
    return invalid_argument("{}: model_type: expected one of {}, got {}", where,
                            known_model_types(), type == nullptr ? "nothing" : brief_json(*type));
  ModelConfig out;
  out.family = find_family(type->get_ref<const std::string&>());
  if (out.family == nullptr)
    return unimplemented("{}: model_type: expected one of {}, got {}", where, known_model_types(),
                         brief_json(*type));
  const json* text = member(root, "text_config");
  if (text != nullptr && !text->is_object())
    return invalid_argument("{}: text_config: expected an object, got {}", where,
                            brief_json(*text));
  ConfigReader config(text != nullptr ? *text : root, text != nullptr ? &root : nullptr, where);
  out.spec.model_type = out.family->model_type;
  out.family->read(config, out.spec);
  for (const json* object : {&root, text}) {
    if (object == nullptr) continue;
    ConfigReader ids(*object, nullptr, where);
    add_ids(ids.integers({"eos_token_id"}, 0, INT32_MAX), out.spec.vocabulary, &out.spec.eos_ids);
    config.take(ids.status());
  }
  read_quantization(config, &out.quantization);
  SLUICE_RETURN_IF_ERROR(config.status());
  assign_kv_groups(out.spec);
  if (Status s = validate_spec(out.spec); !s.ok()) return s.annotate(where);
  return out;
}

Result<ModelConfig> read_model_config(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  SLUICE_ASSIGN_OR_RETURN(const json root, read_json_file(path, kMaxConfigBytes, kConfigLimits));
  return parse_model_config(root, path);
}

Result<ModelSpec> read_spec(const std::string& model_dir) {
  SLUICE_ASSIGN_OR_RETURN(ModelConfig config, read_model_config(model_dir));
  return std::move(config.spec);
}

Result<GenerationDefaults> parse_generation_defaults(const json& root, const std::string& where,
                                                     const ModelSpec& spec) {
  GenerationDefaults out;
  out.eos_ids = spec.eos_ids;
  if (!root.is_object())
    return invalid_argument("{}: expected an object, got {}", where, brief_json(root));
  ConfigReader config(root, nullptr, where);
  out.do_sample = config.boolean({"do_sample"}, true);
  const auto number = [&](std::string_view name, double max, std::optional<float>* to) {
    if (config.has({name})) *to = static_cast<float>(config.number({name}, 0, max));
  };
  number("temperature", 100, &out.temperature);
  number("top_p", 1, &out.top_p);
  number("min_p", 1, &out.min_p);
  if (config.has({"repetition_penalty"}))
    out.repetition_penalty = static_cast<float>(config.number({"repetition_penalty"}, 1e-3, 10));
  if (config.has({"top_k"}))
    out.top_k = static_cast<int32_t>(config.integer({"top_k"}, -1, INT32_MAX));
  add_ids(config.integers({"eos_token_id"}, 0, INT32_MAX), spec.vocabulary, &out.eos_ids);
  SLUICE_RETURN_IF_ERROR(config.status());
  return out;
}

Result<GenerationDefaults> read_generation_defaults(const std::string& model_dir,
                                                    const ModelSpec& spec) {
  const std::string path = model_dir + "/generation_config.json";
  Result<json> root = read_json_file(path, kMaxConfigBytes, kConfigLimits);
  if (!root.ok() && root.status().code() == StatusCode::kNotFound) {
    GenerationDefaults out;
    out.eos_ids = spec.eos_ids;
    return out;
  }
  SLUICE_RETURN_IF_ERROR(root.status());
  return parse_generation_defaults(*root, path, spec);
}

}  // namespace sluice
