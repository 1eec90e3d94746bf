// Random expert layers, from logits to output, on every kernel row of this machine against the
// scalar reference, bit for bit: shape, format, stored order of gate and up, routing rule, masks,
// rounding profile, activation, what follows, threads, and a batch cut in two.
//
// CI tries a few hundred. SLUICE_PROPERTY_RUNS says how many; configuration i is drawn from seed
// kSeed + i alone, and SLUICE_PROPERTY_FIRST names the first i, so that a failure is tried again by
// its number. Configurations 0 to 99999 passed on a Xeon with AMX (every CPU row, and the CUDA
// bodies on the host; f32, bf16, fp8, mxfp4, int8, int4 and all of GGUF's formats, in all six
// ariths and all five forms of the sum) on 21 November 2026, in 350 s on two busy cores.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>

#include "ops/matmul/panels.h"
#include "ops/matmul/weights_data.h"
#include "ops/moe_experts/moe_experts.h"
#include "ops/moe_route/moe_route.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

constexpr uint64_t kSeed = 20261121;

using Row = Kernel<const PanelKernel>;

// The rows that this machine can run.
const std::vector<Row>& rows() {
  static const std::vector<Row> kept = [] {
    std::vector<Row> all;
    for (const Row& row : panel_kernels())
      if (test::runnable(row.isa)) all.push_back(row);
    return all;
  }();
  return kept;
}

// Pools are made once: a thread a configuration would be most of the time.
Context& context_of(Isa isa, int threads) {
  static std::map<std::pair<Isa, int>, std::unique_ptr<Context>> made;
  std::unique_ptr<Context>& c = made[{isa, threads}];
  if (c == nullptr) c = std::make_unique<Context>(isa, threads);
  return *c;
}

// gate and up as checkpoints store them: [2I, D] with gate first, up first or interleaved, or the
// transpose of it. Whatever the order, the panels are those of two matrices.
PackedMatrix glu_panels(Device& device, WeightFormat format, int64_t width, int64_t d,
                        const IntPacking& how, Random& random) {
  if (format == WeightFormat::kMXFP4 || is_block_format(format))
    return test::random_glu_panels(device, format, width, d, random);
  const test::StoredValues gate(width, d, random), up(width, d, random);
  const int64_t order = random.below(3), n = 2 * width;
  const bool transposed = random.chance(0.4);
  const int64_t first[2] = {order == 1 ? width : 0, order == 0 ? width : order == 1 ? 0 : 1};
  const int64_t step = order == 2 ? 2 : 1;
  const int64_t stride_n = transposed ? 1 : d, stride_k = transposed ? n : 1;
  std::vector<float> stored(static_cast<size_t>(n * d));
  StoredMatrix views[2];
  for (int side = 0; side < 2; ++side) {
    const test::StoredValues& from = side == 0 ? gate : up;
    for (int64_t i = 0; i < width; ++i)
      for (int64_t k = 0; k < d; ++k)
        stored[static_cast<size_t>((first[side] + i * step) * stride_n + k * stride_k)] =
            from.values[static_cast<size_t>(i * d + k)];
    views[side].data = reinterpret_cast<const std::byte*>(stored.data() + first[side] * stride_n);
    views[side].n = width;
    views[side].k = d;
    views[side].stride_n = step * stride_n;
    views[side].stride_k = stride_k;
  }
  PackedMatrix packed = pack_glu(device, views[0], views[1], format, how).value();
  const PackedMatrix plain = pack_glu(device, gate.view(), up.view(), format, how).value();
  EXPECT_TRUE(packed.bytes == plain.bytes && std::memcmp(packed.data, plain.data, plain.bytes) == 0)
      << "stored order " << order << (transposed ? ", transposed" : "");
  return test::in_test_memory(std::move(packed));
}

// A length that the format can have.
int64_t length(WeightFormat format, int64_t most, Random& random) {
  if (format == WeightFormat::kMXFP4) return 32 * random.between(1, (most + 31) / 32);
  return random.between(1, most);
}

RouteRule random_rule(int64_t experts, Random& random) {
  RouteRule r;
  r.score = static_cast<RouteScore>(random.below(4));
  r.select = random.chance(0.3) ? RouteSelect::kLogit : RouteSelect::kScore;
  r.renormalise = random.chance(0.5);
  if (random.chance(0.3)) r.epsilon = 1e-20f;
  if (random.chance(0.3)) r.routed_scale = 2.5f;
  if (experts % 4 == 0 && random.chance(0.4))
    r.groups = {4, random.between(1, 4),
                experts >= 8 && random.chance(0.5) ? GroupScore::kSumOf2 : GroupScore::kMax};
  r.rounding = {random.chance(0.2), random.chance(0.2), random.chance(0.2), random.chance(0.2)};
  if (random.chance(0.3)) r.shared = random.between(1, 2);
  return r;
}

// What a layer writes: residual and branch where the form of the sum has them.
struct Written {
  Matrix out, residual, branch;
  bool guards_hold() { return out.guards_hold() && residual.guards_hold() && branch.guards_hold(); }
};
MatrixF32 rows_of(Matrix& m, int64_t begin, int64_t end) {
  return {m.view().row(begin), end - begin, m.cols(), m.view().stride};
}

struct Layer {
  Layer(int64_t index, Random& random)
      : row(rows()[static_cast<size_t>(random.below(std::ssize(rows())))]),
        format(test::format_named(row.weight)),
        t(random.between(1, random.chance(0.1) ? 70 : 9)),
        routed(random.between(1, random.chance(0.1) ? 40 : 10)),
        d(length(format, random.chance(0.03) ? 700 : 90, random)),
        width(length(format, random.chance(0.03) ? 400 : 70, random)),
        rule(random_rule(routed, random)),
        x(t, d, random.below(4), random.below(16)),
        logits(t, routed),
        start{Matrix(t, d, random.below(4), random.below(16)),
              Matrix(t, d, random.below(4), random.below(16)),
              Matrix(t, d, random.below(4), random.below(16))} {
    const int64_t kept = routed / rule.groups.count * rule.groups.kept;
    k = random.between(1, std::min<int64_t>(kept, 8));
    name = fmt::format("configuration {}: {}, T {} E {}+{} K {} D {} I {}", index, row.name, t,
                       routed, rule.shared, k, d, width);
    x.fill(random, random.chance(0.2));
    for (Matrix* m : {&start.out, &start.residual, &start.branch}) m->fill(random);
    const bool ties = random.chance(0.3);
    for (int64_t r = 0; r < t; ++r)
      for (int64_t e = 0; e < routed; ++e)
        logits.at(r, e) = random.chance(0.01) ? NAN
                          : ties              ? static_cast<float>(random.below(5))
                                              : 3 * random.normal();
    fill_weights(random);
    fill_options(random);
  }

  void fill_weights(Random& random) {
    const IntPacking how{
        .block = int64_t{128} << random.below(3),
        .rounding = random.chance(0.1) ? IntRounding::kSearch : IntRounding::kNearest};
    Device& device = *context_of(row.isa, 0).device;
    const int64_t experts = routed + rule.shared;
    for (int64_t e = 0; e < experts; ++e) {
      gate_up.push_back(glu_panels(device, format, width, d, how, random));
      down.push_back(test::random_panels(device, format, d, width, random, false, how));
      biases.push_back({std::vector<float>(static_cast<size_t>(2 * width)),
                        std::vector<float>(static_cast<size_t>(d))});
      for (std::vector<float>& b : biases.back())
        for (float& v : b) v = random.normal();
    }
    const bool biased = random.chance(0.3);
    for (size_t e = 0; e < gate_up.size(); ++e) {
      gate_up_ptrs.push_back(&gate_up[e]);
      down_ptrs.push_back(&down[e]);
      gate_up_panels.push_back(gate_up[e].data);
      down_panels.push_back(down[e].data);
      if (biased) gate_up_bias.push_back(biases[e][0].data());
      if (biased) down_bias.push_back(biases[e][1].data());
    }
    norm_weight.resize(static_cast<size_t>(d));
    for (float& w : norm_weight) w = random.normal();
    for (int64_t e = 0; e < routed; ++e) {
      selection_bias.push_back(0.1f * random.normal());
      expert_scale.push_back(static_cast<float>(random.uniform()) + 0.5f);
    }
    if (random.chance(0.5)) selection_bias.clear();
    if (random.chance(0.5)) expert_scale.clear();
    // A rank's share of the experts: some ids map to nothing, the others anywhere.
    if (random.chance(0.3))
      for (int64_t e = 0; e < experts; ++e)
        map.push_back(random.chance(0.4) ? -1 : static_cast<int32_t>(random.below(experts)));
  }
  void fill_options(Random& random) {
    activation.kind = static_cast<ActivationKind>(random.below(4));
    activation.limit = static_cast<float>(random.between(1, 7));
    const bool oai = activation.kind == ActivationKind::kSwigluOai;
    if (random.chance(0.3))
      activation.clamp =
          !oai && random.chance(0.5) ? ActivationClamp::kAfter : ActivationClamp::kBefore;
    profile = kRoundingProfiles[random.below(std::ssize(kRoundingProfiles))];
    if (random.chance(0.2)) point = WeightPoint::kInput;
    then = static_cast<CombineThen>(random.below(5));
    dropped = random.chance(0.2);
    threads = static_cast<int>(random.below(4));
    cut = random.between(0, t);
    name += fmt::format(", {}, {}{}", profile.name, activation_name(activation.kind),
                        point == WeightPoint::kInput ? ", weight on the input" : "");
  }

  // Routes every token; ids and weights are [T, K+S].
  Status route(const Context& context, std::vector<int32_t>& ids, std::vector<float>& weights) {
    const auto pairs = static_cast<size_t>(t * (k + rule.shared));
    ids.assign(pairs, -9);
    weights.assign(pairs, -9.0f);
    MoeRouteArgs args;
    args.logits = logits.view();
    args.rule = rule;
    args.k = k;
    args.selection_bias = selection_bias.empty() ? nullptr : selection_bias.data();
    args.per_expert_scale = expert_scale.empty() ? nullptr : expert_scale.data();
    args.ids = ids;
    args.weights = weights;
    return context.finish(moe_route(context.exec, args));
  }

  // Tokens [begin, end) into their rows of out.
  Status run(const Context& context, const std::vector<int32_t>& ids,
             const std::vector<float>& weights, int64_t begin, int64_t end, Written& to) {
    const int64_t wide = k + rule.shared;
    const auto first = static_cast<size_t>(begin * wide),
               count = static_cast<size_t>((end - begin) * wide);
    MoeExpertsArgs a;
    a.arith = test::arith_named(row.arith);
    a.x = {x.view().row(begin), end - begin, d, x.view().stride};
    a.ids = std::span(ids).subspan(first, count);
    a.weights = std::span(weights).subspan(first, count);
    a.k = wide;
    a.expert_map = map;
    a.experts = {.gate_up = gate_up_ptrs,
                 .down = down_ptrs,
                 .gate_up_bias = gate_up_bias,
                 .down_bias = down_bias,
                 .width = width,
                 .activation = activation,
                 .gate_up_panels = gate_up_panels,
                 .down_panels = down_panels};
    a.profile = profile;
    a.weight_point = point;
    a.then = then;
    a.norm_weight = norm_weight.data();
    a.out = rows_of(to.out, begin, end);
    a.residual = rows_of(to.residual, begin, end);
    a.branches = {rows_of(to.branch, begin, end), norm_weight.data(), norm_weight.data(), 0.75f};
    Scratch scratch(moe_experts_workspace_bytes({.max_tokens = end - begin,
                                                 .k = wide,
                                                 .experts = std::ssize(gate_up),
                                                 .d = d,
                                                 .width = width,
                                                 .weight_point = point}));
    return context.finish(moe_experts(context.exec, a, scratch.workspace()));
  }

  const Row& row;
  WeightFormat format;
  int64_t t, routed, d, width, k = 1;
  RouteRule rule;
  Matrix x, logits;
  Written start;
  std::string name;
  std::vector<PackedMatrix> gate_up, down;
  std::vector<std::array<std::vector<float>, 2>> biases;
  std::vector<const PackedMatrix*> gate_up_ptrs, down_ptrs;
  std::vector<const std::byte*> gate_up_panels, down_panels;
  std::vector<const float*> gate_up_bias, down_bias;
  std::vector<float> norm_weight, selection_bias, expert_scale;
  std::vector<int32_t> map;
  Activation activation;
  RoundingProfile profile;
  WeightPoint point = WeightPoint::kOutput;
  CombineThen then = CombineThen::kStore;
  bool dropped = false;
  int threads = 0;
  int64_t cut = 0;
};

// Beside another branch, all but the residual is scratch.
void expect_same(Written& a, Written& b, CombineThen then, const std::string& what) {
  EXPECT_TRUE(then == CombineThen::kBranches || same_bits(a.out.view(), b.out.view())) << what;
  EXPECT_TRUE(same_bits(a.residual.view(), b.residual.view())) << what << ", residual";
}

void try_configuration(int64_t index) {
  Random random(kSeed + static_cast<uint64_t>(index));
  Layer layer(index, random);
  SCOPED_TRACE(layer.name);
  const Context &context = context_of(layer.row.isa, layer.threads),
                &other = context_of(layer.row.isa, (layer.threads + 1) % 4),
                &truth = context_of(Isa::kReference, 0);
  std::vector<int32_t> ids, true_ids;
  std::vector<float> weights, true_weights;
  const Status routed = layer.route(context, ids, weights);
  ASSERT_TRUE(routed.ok()) << routed.message();
  ASSERT_TRUE(layer.route(truth, true_ids, true_weights).ok());
  ASSERT_EQ(ids, true_ids);
  for (size_t i = 0; i < weights.size(); ++i) ASSERT_TRUE(same_bits(weights[i], true_weights[i]));
  if (layer.dropped)  // a caller's padding and ids of other ranks; some experts twice
    for (int32_t& id : ids)
      if (random.chance(0.2)) id = static_cast<int32_t>(random.between(-2, layer.routed + 3));
  Written got = layer.start, want = layer.start, halves = layer.start;
  const Status status = layer.run(context, ids, weights, 0, layer.t, got);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_TRUE(layer.run(truth, ids, weights, 0, layer.t, want).ok());
  expect_same(got, want, layer.then, "row and reference");
  ASSERT_TRUE(got.guards_hold());
  for (const auto& [begin, end] : {std::pair(int64_t{0}, layer.cut), {layer.cut, layer.t}}) {
    if (begin == end) continue;
    ASSERT_TRUE(layer.run(other, ids, weights, begin, end, halves).ok());
  }
  expect_same(got, halves, layer.then, "cut at " + std::to_string(layer.cut));
}

TEST(ExpertLayers, RandomOnesGiveTheBitsOfTheReference) {
  const char* text = std::getenv("SLUICE_PROPERTY_FIRST");
  const int64_t first = text != nullptr ? std::strtoll(text, nullptr, 10) : 0;
  const int64_t count = test::property_runs(300);
  for (int64_t i = first; i < first + count; ++i) {
    try_configuration(i);
    if (HasFailure()) return;
  }
}

// The configurations are drawn from the kernels' own table: a format or an arith without a row
// there would be left out.
TEST(ExpertLayers, EveryFormatAndArithIsDrawn) {
  std::set<std::string_view> formats, ariths;
  for (const Row& row : rows()) formats.insert(row.weight), ariths.insert(row.arith);
  for (int i = 0; i < kWeightFormats; ++i) {
    const auto format = static_cast<WeightFormat>(i);
    if (format == WeightFormat::kF16) continue;  // row-major only
    EXPECT_TRUE(formats.contains(weight_format_name(format))) << weight_format_name(format);
  }
  for (int i = 0; i < kAriths; ++i)
    EXPECT_TRUE(ariths.contains(arith_name(static_cast<Arith>(i)))) << i;
}

}  // namespace
}  // namespace sluice
