#include "cli/bench_experts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "cli/load.h"
#include "cli/raw_experts.h"
#include "cli/synthetic_experts.h"
#include "cli/version.h"
#include "device/cpu/probe.h"
#include "ops/kernel_table.h"
#include "ops/matmul/panels.h"

namespace sluice {
namespace {

constexpr int kWarmups = 2, kCalls = 7, kRawCalls = 3;

struct Roofs {
  double read = 0, peak = 0;  // bytes and operations per second
};

struct Measured {
  int64_t tokens = 0, calls = 0;
  double experts = 0;
  double median = 0, best = 0, roof = 0;  // seconds
  double raw = 0;                         // median of steps that pack their weights; 0: not asked
  double operations = 0, bytes = 0;
};

struct Bench {
  const BenchExpertsOptions& options;
  ExpertShape shape;
  const SyntheticFormat* format = nullptr;
  Arith arith = Arith::kBf16Tile;
  RoundingProfile profile;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<SyntheticExperts> layer;
  std::unique_ptr<RawExperts> raw;  // --prefused no
  Roofs roofs;
  int64_t turn = 0;
};

const SyntheticFormat* find_format(const std::string& name) {
  for (const SyntheticFormat& f : synthetic_formats())
    if (f.name == name) return &f;
  return nullptr;
}

ExpertRouting routing_of(const std::string& name) {
  return name == "zipf"  ? ExpertRouting::kZipf
         : name == "one" ? ExpertRouting::kOne
                         : ExpertRouting::kUniform;
}

// The format's own arith, or what --mode or --arith make of it.
Result<Arith> arith_of(const SyntheticFormat& format, const BenchExpertsOptions& o) {
  SLUICE_ASSIGN_OR_RETURN(const ArithChoice choice, arith_choice("bf16", o.mode, o.arith));
  if (o.mode.empty() && o.arith.empty()) return format.arith;
  const std::optional<Arith> forced = arith_from_name(o.arith);
  std::string modes, ariths;
  const auto add = [](std::string& to, std::string_view name) {
    to += fmt::format("{}{}", to.empty() ? "" : ", ", name);
  };
  for (int i = 1; i < kModes; ++i)
    if (has_mode(format.format, static_cast<Mode>(i))) add(modes, mode_name(static_cast<Mode>(i)));
  for (int i = 0; i < kAriths; ++i)
    if (select_panel_kernel(Isa::kReference, format.format, static_cast<Arith>(i)) != nullptr)
      add(ariths, arith_name(static_cast<Arith>(i)));
  if (!forced && !has_mode(format.format, choice.mode))
    return invalid_argument("mode: {} weights have {}, got {}", format.name, modes, o.mode);
  if (forced && select_panel_kernel(Isa::kReference, format.format, *forced) == nullptr)
    return invalid_argument("arith: {} weights have {}, got {}", format.name, ariths, o.arith);
  if (forced) return *forced;
  const Compute compute = format.format == WeightFormat::kF32 ? Compute::kF32 : Compute::kBf16;
  return panel_arith(format.format, compute, choice.mode);
}

Result<Roofs> measure_roofs(const Bench& b) {
  const ExecContext context = b.runtime->context();
  const CpuProbe probe = probe_cpu(context);
  if (!probe.ok) return resource_exhausted("bench: no memory for the probe of this machine");
  const Buffer& weights = b.layer->storage();
  constexpr int64_t kPiece = int64_t{1} << 20;
  const auto floats = static_cast<int64_t>(weights.bytes() / 4) / kPiece * kPiece;
  Roofs roofs;
  roofs.read = 1e9 * probe_read_rate(context, weights.as<float>(), floats, 5);
  const Arith arith = b.arith;
  const bool bf16 = arith == Arith::kBf16Tile || arith == Arith::kFp8G128;  // e4m3 times e4m3, too
  roofs.peak = 1e9 * (bf16                 ? probe.bf16_gflops
                      : quantizes_x(arith) ? probe.int8_gops
                                           : probe.fma_gflops);
  return roofs;
}

double distinct(const std::vector<int32_t>& ids) {
  return static_cast<double>(std::set<int32_t>(ids.begin(), ids.end()).size());
}

// The inputs of a step of so many tokens, and the step itself.
struct Step {
  Step(Bench& bench, int64_t tokens)
      : b(bench),
        t(tokens),
        x(static_cast<size_t>(tokens * bench.shape.d)),
        out(x.size()),
        weights(static_cast<size_t>(tokens * bench.shape.k),
                1.0f / static_cast<float>(bench.shape.k)) {
    std::mt19937 random(static_cast<uint32_t>(b.options.seed));
    for (float& v : x) v = static_cast<float>(random()) * 0x1p-31f - 1.0f;
  }
  Status allocate() {
    const ExpertShape& s = b.shape;
    SLUICE_ASSIGN_OR_RETURN(
        workspace,
        b.runtime->device().allocate(moe_experts_workspace_bytes({t, s.k, s.experts, s.d, s.width}),
                                     "bench: workspace"));
    return ok_status();
  }
  void route() {
    ids = draw_experts(b.shape, routing_of(b.options.routing), t,
                       b.options.seed + static_cast<uint64_t>(1000 + b.turn));
  }
  Status run(const ExpertWeights& experts) {
    MoeExpertsArgs args;
    args.arith = b.arith;
    args.x = {x.data(), t, b.shape.d};
    args.ids = ids;
    args.weights = weights;
    args.k = b.shape.k;
    args.experts = experts;
    args.profile = b.profile;
    args.out = {out.data(), t, b.shape.d};
    return moe_experts(b.runtime->context(), args, {workspace.data(), workspace.bytes()});
  }

  Bench& b;
  int64_t t;
  std::vector<float> x, out, weights;
  std::vector<int32_t> ids;
  Buffer workspace;
};

// Seconds of a step that has raw weights only: the experts that it needs are packed in it.
Result<double> measure_raw(Step& step) {
  std::vector<double> seconds;
  for (int call = 0; call < 1 + kRawCalls; ++call) {
    if (interrupted()) return Status(StatusCode::kCancelled, "interrupted");
    step.route();
    ++step.b.turn;
    const double start = now_seconds();
    SLUICE_ASSIGN_OR_RETURN(
        const ExpertWeights experts,
        step.b.raw->prefuse(step.b.runtime->device(), step.b.runtime->pool(), step.ids));
    SLUICE_RETURN_IF_ERROR(step.run(experts));
    if (call > 0) seconds.push_back(now_seconds() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// One number of tokens: calls until there are enough of them and time has passed.
Result<Measured> measure(Bench& b, int64_t tokens) {
  const ExpertShape& s = b.shape;
  Step step(b, tokens);
  SLUICE_RETURN_IF_ERROR(step.allocate());
  Measured m;
  m.tokens = tokens;
  m.operations = 2.0 * static_cast<double>(tokens * s.k) * 3.0 * static_cast<double>(s.d * s.width);
  std::vector<double> seconds;
  double total = 0;
  for (int64_t call = 0; call < kWarmups + kCalls || total < b.options.seconds; ++call) {
    if (interrupted()) return Status(StatusCode::kCancelled, "interrupted");
    step.route();
    const ExpertWeights experts = b.layer->weights(b.turn++ % b.layer->sets());
    const double start = now_seconds();
    SLUICE_RETURN_IF_ERROR(step.run(experts));
    const double took = now_seconds() - start;
    if (call < kWarmups) continue;
    total += took;
    seconds.push_back(took);
    m.experts += distinct(step.ids);
  }
  std::sort(seconds.begin(), seconds.end());
  m.calls = static_cast<int64_t>(seconds.size());
  m.experts /= static_cast<double>(m.calls);
  m.bytes = m.experts * static_cast<double>(b.layer->expert_bytes());
  m.median = seconds[seconds.size() / 2];
  m.best = seconds[0];
  m.roof = std::max(m.bytes / b.roofs.read, m.operations / b.roofs.peak);
  if (b.raw != nullptr) {
    SLUICE_ASSIGN_OR_RETURN(m.raw, measure_raw(step));
  }
  return m;
}

nlohmann::ordered_json facts_of(const Bench& b) {
  const Isa isa = b.runtime->isa();
  const auto* kernel = select_panel_kernel(isa, b.format->format, b.arith);
  const ExpertShape& s = b.shape;
  const BenchExpertsOptions& o = b.options;
  return {{"command",
           fmt::format(
               "sluice bench experts --shape {} --weights {} --tokens {} --routing {} "
               "--rotate {} --time {} --seed {} --threads {}{}{}{} --json",
               o.shape, o.weights, fmt::join(o.tokens, ","), o.routing, o.rotate_gb, o.seconds,
               o.seed, b.runtime->pool().size(), o.prefused ? "" : " --prefused no",
               b.arith == b.format->arith ? "" : fmt::format(" --arith {}", arith_name(b.arith)),
               o.profile == kF32Profile.name ? "" : " --profile " + o.profile)},
          {"sluice", version()},
          {"build", build_id()},
          {"cpu", cpu_name()},
          {"features", cpu_features()},
          {"isa", isa_name(isa)},
          {"threads", b.runtime->pool().size()},
          {"shape", {{"name", s.name}, {"D", s.d}, {"I", s.width}, {"E", s.experts}, {"K", s.k}}},
          {"weights", b.format->name},
          {"arith", arith_name(b.arith)},
          {"profile", b.profile.name},
          {"kernel", kernel != nullptr ? kernel->name : "none"},
          {"routing", b.options.routing},
          {"seed", b.options.seed},
          {"copies", b.layer->sets()},
          {"expert_bytes", b.layer->expert_bytes()},
          {"read_gb_per_second", b.roofs.read / 1e9},
          {"peak_gops", b.roofs.peak / 1e9}};
}

nlohmann::ordered_json row_of(const Measured& m) {
  nlohmann::ordered_json row = {{"tokens", m.tokens},
                                {"experts", m.experts},
                                {"us", m.median * 1e6},
                                {"best_us", m.best * 1e6},
                                {"gops", m.operations / m.median / 1e9},
                                {"gb_per_second", m.bytes / m.median / 1e9},
                                {"roof_us", m.roof * 1e6},
                                {"roof_share", m.roof / m.median},
                                {"calls", m.calls}};
  if (m.raw > 0) row["raw_us"] = m.raw * 1e6, row["raw_ratio"] = m.raw / m.median;
  return row;
}

void print_head(const nlohmann::ordered_json& f, const Bench& b, Console& console) {
  console.out << fmt::format(
      "{} · {} · {} workers\n{}: D {} I {} E {} K {}, {} weights ({}), {} routing, {} copies of {} "
      "an expert\n{}, reads {:.1f} GB/s, peak {:.0f} GOP/s\n\n",
      f["cpu"].get<std::string>(), f["isa"].get<std::string>(), f["threads"].get<int>(),
      b.shape.name, b.shape.d, b.shape.width, b.shape.experts, b.shape.k,
      f["weights"].get<std::string>(), f["arith"].get<std::string>(), b.options.routing,
      b.layer->sets(), human_bytes(b.layer->expert_bytes()), f["kernel"].get<std::string>(),
      b.roofs.read / 1e9, b.roofs.peak / 1e9);
  console.out << fmt::format("{:>7} {:>8} {:>10} {:>10} {:>8} {:>7} {:>10} {:>7}\n", "tokens",
                             "experts", "us", "best", "GOP/s", "GB/s", "roof us", "roof %");
}

void print_row(const Measured& m, Console& console) {
  console.out << fmt::format(
      "{:>7} {:>8.1f} {:>10.0f} {:>10.0f} {:>8.0f} {:>7.1f} {:>10.0f} {:>7.1f}\n", m.tokens,
      m.experts, m.median * 1e6, m.best * 1e6, m.operations / m.median / 1e9,
      m.bytes / m.median / 1e9, m.roof * 1e6, 100 * m.roof / m.median);
  if (m.raw > 0)
    console.out << fmt::format(
        "{:>16} {:>10.0f} us with weights packed in the step: {:.1f} times\n", "", m.raw * 1e6,
        m.raw / m.median);
  console.out << std::flush;
}

template <class Rows>
std::string names_of(const Rows& rows) {
  std::string names;
  for (const auto& row : rows) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

}  // namespace

std::string bench_shapes() {
  return names_of(expert_shapes());
}
std::string bench_weights() {
  return names_of(synthetic_formats());
}

Status run_bench_experts(const BenchExpertsOptions& options, Console& console) {
  Bench b{options};
  SLUICE_ASSIGN_OR_RETURN(b.shape, parse_expert_shape(options.shape));
  b.format = find_format(options.weights);
  if (b.format == nullptr)
    return invalid_argument("weights: expected one of {}, got \"{}\"", bench_weights(),
                            options.weights);
  SLUICE_ASSIGN_OR_RETURN(b.arith, arith_of(*b.format, options));
  SLUICE_ASSIGN_OR_RETURN(b.profile, parse_rounding_profile(options.profile));
  SLUICE_ASSIGN_OR_RETURN(b.runtime, Runtime::create({.threads = options.threads}));
  SLUICE_ASSIGN_OR_RETURN(
      b.layer, SyntheticExperts::create(b.runtime->device(), b.runtime->pool(), b.shape, *b.format,
                                        options.rotate_gb * 1e9, options.seed));
  if (!options.prefused) b.raw = std::make_unique<RawExperts>(b.shape, *b.format, options.seed);
  SLUICE_ASSIGN_OR_RETURN(b.roofs, measure_roofs(b));
  nlohmann::ordered_json facts = facts_of(b);
  if (!options.json) print_head(facts, b, console);
  facts["rows"] = nlohmann::ordered_json::array();
  for (const int64_t tokens : options.tokens) {
    SLUICE_ASSIGN_OR_RETURN(const Measured m, measure(b, tokens));
    facts["rows"].push_back(row_of(m));
    if (!options.json) print_row(m, console);
  }
  if (options.json)
    console.out << facts.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  return ok_status();
}

}  // namespace sluice
