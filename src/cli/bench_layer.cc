#include "cli/bench_layer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/bench_experts.h"
#include "cli/load.h"
#include "cli/synthetic_layer.h"
#include "cli/version.h"
#include "device/cpu/probe.h"
#include "model/mode.h"
#include "ops/matmul/panels.h"

namespace sluice {
namespace {

constexpr int64_t kWarmups = 2, kSteps = 7;

Result<const SyntheticFormat*> find_format(const char* option, const std::string& name) {
  for (const SyntheticFormat& f : synthetic_formats())
    if (f.name == name) return &f;
  return invalid_argument("{}: expected one of {}, got \"{}\"", option, bench_weights(), name);
}

// The format by the arith that --mode makes of it; another keeps its own.
SyntheticFormat in_mode(SyntheticFormat format, Mode mode) {
  const Compute compute = format.format == WeightFormat::kF32 ? Compute::kF32 : Compute::kBf16;
  if (mode != Mode::kDefault && has_mode(format.format, mode))
    format.arith = panel_arith(format.format, compute, mode);
  return format;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// One number of tokens: whole steps, until there are enough of them and time has passed.
Result<nlohmann::ordered_json> measure(SyntheticLayer& layer, int64_t tokens, double least) {
  const std::span<const LayerOp> ops = layer.ops();
  std::vector<std::vector<double>> seconds(ops.size());
  std::vector<double> whole;
  double total = 0;
  for (int64_t step = 0; step < kWarmups + kSteps || total < least; ++step) {
    if (interrupted()) return Status(StatusCode::kCancelled, "interrupted");
    layer.begin_step(step);
    const double first = now_seconds();
    double at = first;
    for (size_t i = 0; i < ops.size(); ++i) {
      const Status status = ops[i].run();
      if (!status.ok()) return status.annotate(std::string(ops[i].name));
      const double now = now_seconds();
      if (step >= kWarmups) seconds[i].push_back(now - at);
      at = now;
    }
    if (step < kWarmups) continue;
    whole.push_back(at - first);
    total += at - first;
  }
  double sum = 0;
  for (const std::vector<double>& s : seconds) sum += median(s);
  nlohmann::ordered_json parts = nlohmann::ordered_json::array();
  for (size_t i = 0; i < ops.size(); ++i) {
    const double each = median(seconds[i]);
    parts.push_back({{"op", ops[i].name}, {"us", each * 1e6}, {"share", each / sum}});
  }
  return nlohmann::ordered_json{{"tokens", tokens},
                                {"us", median(whole) * 1e6},
                                {"best_us", *std::min_element(whole.begin(), whole.end()) * 1e6},
                                {"experts", layer.experts_used()},
                                {"steps", whole.size()},
                                {"ops", parts}};
}

nlohmann::ordered_json facts_of(const BenchLayerOptions& o, Runtime& runtime, const LayerShape& s,
                                const ExpertShape& e) {
  return {{"command",
           fmt::format("sluice bench layer --shape {} --weights {} --dense {} --tokens {} "
                       "--context {} --rotate {} --time {} --seed {} --threads {}{}{} --json",
                       o.shape, o.weights, o.dense, fmt::join(o.tokens, ","), o.context,
                       o.rotate_gb, o.seconds, o.seed, runtime.pool().size(),
                       o.mode.empty() ? "" : " --mode " + o.mode,
                       o.profile == kF32Profile.name ? "" : " --profile " + o.profile)},
          {"sluice", version()},
          {"build", build_id()},
          {"cpu", cpu_name()},
          {"features", cpu_features()},
          {"isa", isa_name(runtime.isa())},
          {"threads", runtime.pool().size()},
          {"shape",
           {{"name", s.name},
            {"D", e.d},
            {"I", e.width},
            {"E", e.experts},
            {"K", e.k},
            {"H", s.heads},
            {"G", s.kv_heads},
            {"C", s.head_size},
            {"window", s.window},
            {"dense", s.dense}}},
          {"weights", o.weights},
          {"dense", o.dense},
          {"mode", o.mode.empty() ? "default" : o.mode},
          {"profile", o.profile},
          {"context", o.context}};
}

void print_row(const nlohmann::ordered_json& row, Console& console) {
  console.out << fmt::format("{} tokens: {:.0f} us (best {:.0f}), {} experts used\n",
                             row["tokens"].get<int64_t>(), row["us"].get<double>(),
                             row["best_us"].get<double>(), row["experts"].get<int64_t>());
  for (const auto& part : row["ops"])
    console.out << fmt::format("  {:<24} {:>10.1f} us {:>6.1f} %\n", part["op"].get<std::string>(),
                               part["us"].get<double>(), 100 * part["share"].get<double>());
  console.out << std::flush;
}

}  // namespace

std::string bench_layer_shapes() {
  std::string names;
  for (const LayerShape& s : layer_shapes())
    names += (names.empty() ? "" : ", ") + std::string(s.name);
  return names;
}

Status run_bench_layer(const BenchLayerOptions& options, Console& console) {
  ExpertShape e;
  SLUICE_ASSIGN_OR_RETURN(const LayerShape s, parse_layer_shape(options.shape, &e));
  SLUICE_ASSIGN_OR_RETURN(const SyntheticFormat* weights, find_format("weights", options.weights));
  SLUICE_ASSIGN_OR_RETURN(const SyntheticFormat* elsewhere, find_format("dense", options.dense));
  SLUICE_ASSIGN_OR_RETURN(const ArithChoice choice, arith_choice("bf16", options.mode, ""));
  SLUICE_RETURN_IF_ERROR(
      check_mode(choice.mode, {weights->format, elsewhere->format}, "bench layer"));
  const SyntheticFormat format = in_mode(*weights, choice.mode),
                        dense = in_mode(*elsewhere, choice.mode);
  SLUICE_ASSIGN_OR_RETURN(const RoundingProfile profile, parse_rounding_profile(options.profile));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Runtime> runtime,
                          Runtime::create({.threads = options.threads}));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<SyntheticExperts> experts,
                          SyntheticExperts::create(runtime->device(), runtime->pool(), e, format,
                                                   options.rotate_gb * 1e9, options.seed));
  nlohmann::ordered_json facts = facts_of(options, *runtime, s, e);
  if (!options.json)
    console.out << fmt::format(
        "{} · {} · {} workers\n{}: D {} H {} G {} C {}, E {} K {} I {}, {} "
        "experts, {} elsewhere, {} tokens before\n",
        facts["cpu"].get<std::string>(), facts["isa"].get<std::string>(), runtime->pool().size(),
        s.name, e.d, s.heads, s.kv_heads, s.head_size, e.experts, e.k, e.width, options.weights,
        options.dense, options.context);
  facts["rows"] = nlohmann::ordered_json::array();
  for (const int64_t tokens : options.tokens) {
    SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<SyntheticLayer> layer,
                            SyntheticLayer::create(*runtime, s, e, *experts, format, dense, profile,
                                                   tokens, options.context, options.seed));
    SLUICE_ASSIGN_OR_RETURN(const nlohmann::ordered_json row,
                            measure(*layer, tokens, options.seconds));
    if (!options.json) print_row(row, console);
    facts["rows"].push_back(row);
  }
  if (options.json)
    console.out << facts.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  return ok_status();
}

}  // namespace sluice
