#include "cli/inspect.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/topology.h"
#include "cli/inspect_print.h"
#include "cli/load.h"
#include "cli/store_report.h"
#include "engine/engine.h"
#include "model/config.h"
#include "model/footprint.h"
#include "model/forward.h"
#include "model/mode.h"
#include "model/pack_plan.h"
#include "model/pack_store.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

// Everything that could be read, however much is broken.
struct Findings {
  std::vector<std::string> problems, warnings;
  std::unique_ptr<ModelConfig> config;
  std::unique_ptr<TensorSource> source;
  std::unique_ptr<PackedStore> store;  // instead of a source
  TensorTable table;
  Resolution resolution;
  Compute compute = Compute::kBf16;
  Mode mode = Mode::kDefault;
  bool bf16_dot = false;
};

void note(const Status& status, std::vector<std::string>* problems) {
  if (!status.ok()) problems->push_back(status.message());
}

// A packed store: it loads if loading it does, which costs nothing.
void read_store(const std::string& path, Findings* f) {
  Result<std::unique_ptr<PackedStore>> store = PackedStore::open(path);
  if (!store.ok()) return note(store.status(), &f->problems);
  f->store = std::move(store).value();
  const Result<std::unique_ptr<Runtime>> runtime = Runtime::create({.threads = 1});
  if (!runtime.ok()) return note(runtime.status(), &f->problems);
  const LoadOptions options{.compute = f->compute, .mode = f->mode, .bf16_dot = f->bf16_dot};
  note(load_packed_store(**runtime, path, options).status(), &f->problems);
}

Findings read_all(const std::string& model, const ArithChoice& choice) {
  Findings f;
  f.compute = choice.compute;
  f.mode = choice.mode;
  f.bf16_dot = choice.bf16_dot;
  if (is_packed_store(model)) {
    read_store(model, &f);
    Result<ModelConfig> config = read_model_config(model);
    if (!config.ok()) return f;  // the store's own problem said it
    f.config = std::make_unique<ModelConfig>(std::move(config).value());
    f.config->family->declare(f.config->spec, f.table);
    return f;
  }
  Result<ModelConfig> config = read_model_config(model);
  note(config.status(), &f.problems);
  Result<std::unique_ptr<TensorSource>> source = open_tensor_source(model);
  note(source.status(), &f.problems);
  if (source.ok()) {
    f.source = std::move(source).value();
    f.warnings = f.source->warnings();
  }
  if (!config.ok()) return f;
  f.config = std::make_unique<ModelConfig>(std::move(config).value());
  note(read_generation_defaults(model, f.config->spec).status(), &f.problems);
  f.config->family->declare(f.config->spec, f.table);
  if (f.source == nullptr) return f;
  f.resolution = resolve(f.table, *f.source, f.config->quantization);
  f.problems.insert(f.problems.end(), f.resolution.problems.begin(), f.resolution.problems.end());
  std::set<WeightFormat> formats;
  for (const ResolvedRule& r : f.resolution.rules)
    if (r.rule->k > 0) formats.insert(packed_format(*r.rule, &r, f.compute));
  if (f.problems.empty()) note(check_mode(f.mode, formats, model), &f.problems);
  if (f.problems.empty() && f.bf16_dot)
    note(check_bf16_dot(f.compute, f.mode, formats, model), &f.problems);
  return f;
}

// "0-4, 6-10" of ascending layers.
std::string ranges(const std::vector<int>& layers) {
  std::string text;
  for (size_t i = 0; i < layers.size();) {
    size_t j = i;
    while (j + 1 < layers.size() && layers[j + 1] == layers[j] + 1) ++j;
    if (!text.empty()) text += ", ";
    text += i == j ? fmt::format("{}", layers[i]) : fmt::format("{}-{}", layers[i], layers[j]);
    i = j + 1;
  }
  return text;
}

ordered_json attention_json(const AttentionSpec& a) {
  ordered_json j = {{"heads", a.heads},   {"kv_heads", a.kv_heads}, {"head_size", a.head_size},
                    {"window", a.window}, {"scale", a.scale},       {"qk_norm", a.qk_norm},
                    {"v_norm", a.v_norm}, {"k_is_v", a.k_is_v},     {"qkv_bias", a.qkv_bias},
                    {"o_bias", a.o_bias}, {"sinks", a.sinks}};
  return j;
}

std::string_view score_name(RouteScore score) {
  switch (score) {
    case RouteScore::kSoftmaxAll:
      return "softmax over all, then top K";
    case RouteScore::kSoftmaxSelected:
      return "top K, then softmax over them";
    case RouteScore::kSigmoid:
      return "sigmoid";
    case RouteScore::kSqrtSoftplus:
      return "square root of softplus";
  }
  return "";
}

ordered_json layer_json(const LayerSpec& l) {
  ordered_json j = {{"norms", l.norms == NormPlacement::kPre ? "pre" : "sandwich"},
                    {"attention", attention_json(l.attention)}};
  if (l.dense)
    j["dense"] = {{"width", l.dense->width},
                  {"activation", activation_name(l.dense->activation.kind)}};
  if (l.moe)
    j["moe"] = {{"experts", l.moe->experts},
                {"k", l.moe->k},
                {"width", l.moe->width},
                {"activation", activation_name(l.moe->activation.kind)},
                {"score", score_name(l.moe->rule.score)},
                {"renormalise", l.moe->rule.renormalise},
                {"router_norm", l.moe->router_norm},
                {"per_expert_scale", l.moe->per_expert_scale},
                {"bias", l.moe->expert_bias}};
  return j;
}

ordered_json spec_json(const ModelSpec& s) {
  ordered_json j = {{"model_type", s.model_type},
                    {"D", s.d},
                    {"V", s.vocabulary},
                    {"L", s.layers.size()},
                    {"context", s.context},
                    {"eps", s.eps},
                    {"tied_head", s.tied_head},
                    {"embed_scale", s.embed_scale},
                    {"final_softcap", s.final_softcap}};
  // Equal layers once, with the list of their numbers.
  struct Kind {
    ordered_json layer;
    std::vector<int> numbers;
  };
  std::vector<Kind> kinds;
  for (size_t l = 0; l < s.layers.size(); ++l) {
    const ordered_json kind = layer_json(s.layers[l]);
    auto it =
        std::find_if(kinds.begin(), kinds.end(), [&](const Kind& k) { return k.layer == kind; });
    if (it == kinds.end()) it = kinds.insert(kinds.end(), Kind{kind, {}});
    it->numbers.push_back(static_cast<int>(l));
  }
  j["layers"] = ordered_json::array();
  for (const Kind& kind : kinds) {
    ordered_json entry = {{"layers", ranges(kind.numbers)}};
    entry.update(kind.layer);
    j["layers"].push_back(std::move(entry));
  }
  return j;
}

// "layers.7.x" -> "layers.N.x".
std::string without_layer(const TensorRule& rule, const std::string& name) {
  const std::string layer = fmt::format("layers.{}.", rule.layer);
  const size_t at = name.find(layer);
  if (rule.layer < 0 || at == std::string::npos) return name;
  return name.substr(0, at) + "layers.N." + name.substr(at + layer.size());
}

// One row per kind of stored tensor, equal ones of several layers together.
ordered_json tensors_json(const Findings& f) {
  struct Row {
    ordered_json key;
    std::vector<int> layers;
    size_t bytes = 0, count = 0;
  };
  std::vector<Row> rows;
  for (const ResolvedRule& r : f.resolution.rules) {
    for (size_t i = 0; i < r.way->size(); ++i) {
      const StoredTensor& stored = (*r.way)[i];
      const std::string name(stored.names.front().substr(stored.names.front().front() == '/'));
      ordered_json key = {
          {"name", without_layer(*r.rule, name)},
          {"role", tensor_role_name(r.rule->role)},
          {"letters", r.rule->letters},
          {"shape", r.tensors[i][0].view->shape},
          {"dtype", dtype_name(r.tensors[i][0].view->dtype)},
          {"packed",
           r.rule->k == 0 ? "f32" : weight_format_name(packed_format(*r.rule, &r, f.compute))},
          {"shard", std::string(1, r.rule->shard)}};
      auto it = std::find_if(rows.begin(), rows.end(), [&](const Row& x) { return x.key == key; });
      if (it == rows.end()) it = rows.insert(rows.end(), Row{.key = std::move(key)});
      if (r.rule->layer >= 0) it->layers.push_back(r.rule->layer);
      for (const ResolvedTensor& t : r.tensors[i]) it->bytes += t.view->bytes;
      it->count += r.tensors[i].size();
    }
  }
  ordered_json out = ordered_json::array();
  for (Row& row : rows) {
    ordered_json& key = row.key;
    key["layers"] = ranges(row.layers);
    key["tensors"] = row.count;
    key["stored_bytes"] = row.bytes;
    out.push_back(std::move(key));
  }
  return out;
}

// How each role of a directory would lie in memory, and by which ariths it would be multiplied.
void add_loaded_roles(const Findings& f, ordered_json& report) {
  if (f.source == nullptr || f.config == nullptr || !f.resolution.problems.empty()) return;
  const bool f32 = f.compute == Compute::kF32;
  const PackOptions as_loaded{.weights = f32 ? WeightFormat::kF32 : WeightFormat::kBF16};
  const Result<PackPlan> plan = plan_store(f.config->spec, f.resolution, as_loaded);
  if (plan.ok())
    report["loaded_roles"] = loaded_roles_json(plan->header, f.compute, f.mode, f.bf16_dot);
}

void add_costs(const InspectOptions& o, Findings& f, ordered_json& report) {
  const ModelSpec& spec = f.config->spec;
  // With missing tensors the published storage stands in for them.
  const bool whole = f.source != nullptr && f.resolution.problems.empty();
  ModelFootprint cost = footprint(spec, f.table, whole ? &f.resolution : nullptr, f.compute);
  if (f.store != nullptr) {
    // Every weight is read where the store is mapped.
    cost.weight_bytes = 0;
    cost.mapped_bytes = f.store->header().file_bytes;
    for (RoleFootprint& role : cost.roles) role.packed_bytes = role.mapped_bytes = 0;
    for (const StoreEntry& e : f.store->header().entries)
      for (int r = 0; r < kTensorRoles; ++r)
        if (tensor_role_name(static_cast<TensorRole>(r)) == e.role)
          cost.roles[static_cast<size_t>(r)].mapped_bytes += e.bytes;
  }
  ordered_json roles;
  for (int r = 0; r < kTensorRoles; ++r) {
    const RoleFootprint& role = cost.roles[static_cast<size_t>(r)];
    if (role.parameters == 0) continue;
    roles[std::string(tensor_role_name(static_cast<TensorRole>(r)))] = {
        {"parameters", role.parameters},
        {"bytes", role.packed_bytes},
        {"mapped_bytes", role.mapped_bytes}};
  }
  report["roles"] = std::move(roles);
  report["parameters"] = cost.parameters;
  report["active_parameters"] = cost.active_parameters;
  report["kv"] = ordered_json::array();
  size_t kv_bytes = 0;
  for (size_t g = 0; g < spec.kv_groups.size(); ++g) {
    const KvGroupSpec& group = spec.kv_groups[g];
    const int64_t held = kv_blocks_needed(group, o.tokens, o.tokens) * kKvBlock;
    kv_bytes += cost.kv_bytes_per_token[g] * static_cast<size_t>(held);
    report["kv"].push_back({{"layers", ranges(group.layers)},
                            {"kv_heads", group.kv_heads},
                            {"head_size", group.head_size},
                            {"window", group.window},
                            {"bytes_per_token", cost.kv_bytes_per_token[g]}});
  }
  const int workers = o.threads > 0 ? o.threads : available_cores();
  const EngineOptions engine;
  const int64_t rows = std::min(engine.max_batch_tokens, o.tokens);
  const size_t state = forward_state_bytes(spec, workers, rows, std::min<int64_t>(rows, 16));
  report["memory"] = {{"tokens", o.tokens},
                      {"weights_bytes", cost.weight_bytes},
                      {"mapped_bytes", cost.mapped_bytes},
                      {"kv_bytes", kv_bytes},
                      {"state_bytes", state},
                      {"peak_bytes", cost.weight_bytes + kv_bytes + state},
                      {"machine_bytes", memory_limit_bytes()}};
  if (cost.weight_bytes + kv_bytes + state > memory_limit_bytes())
    f.problems.push_back(fmt::format("{}: the weights need {} bytes of memory, the machine has {}",
                                     o.model, cost.weight_bytes, memory_limit_bytes()));
}

}  // namespace

Status run_inspect(const InspectOptions& o, Console& console) {
  if (o.tokens < 1 || o.tokens > (1 << 30))
    return invalid_argument("tokens: expected 1 to 2^30, got {}", o.tokens);
  SLUICE_ASSIGN_OR_RETURN(const ArithChoice choice, arith_choice(o.compute, o.mode, o.arith));
  Findings f = read_all(o.model, choice);
  ordered_json report = {
      {"model", o.model}, {"compute", compute_name(f.compute)}, {"mode", mode_name(f.mode)}};
  if (f.config != nullptr) report["spec"] = spec_json(f.config->spec);
  if (f.source != nullptr) {
    size_t bytes = 0;
    for (const TensorView& t : f.source->tensors()) bytes += t.bytes;
    report["files"] = {{"tensors", f.source->tensors().size()},
                       {"bytes", bytes},
                       {"ignored_tensors", f.resolution.ignored.size()}};
  }
  if (f.store != nullptr) {
    const StoreHeader& h = f.store->header();
    report["store"] = {
        {"version", kStoreVersion},     {"layout_id", kPanelLayoutId},
        {"bytes", h.file_bytes},        {"tensors", h.entries.size()},
        {"fits_bf16", h.fits_bf16},     {"fits_f32", h.fits_f32},
        {"made_by", f.store->remake()}, {"roles", store_roles_json(h, f.mode, f.bf16_dot)}};
    report["tensors"] = store_tensors_json(h, f.mode, f.bf16_dot);
  } else {
    report["tensors"] = tensors_json(f);
    add_loaded_roles(f, report);
  }
  if (f.config != nullptr) add_costs(o, f, report);
  report["warnings"] = f.warnings;
  report["problems"] = f.problems;
  report["loads"] = f.problems.empty();
  if (o.json)
    console.out << report.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
  else
    print_inspection(report, console);
  if (f.problems.empty()) return ok_status();
  return invalid_argument("{}", f.problems.front());
}

}  // namespace sluice
