// moe_experts: the fused whole against the chain of its pieces, bit for bit, over random layers;
// counts, maps, invariance, errors.
#include "ops/moe_experts/moe_experts.h"

#include <gtest/gtest.h>

#include "ops/moe_experts/layer_data.h"

namespace sluice {
namespace {

using test::chain;
using test::Context;
using test::Layer;
using test::Matrix;
using test::Problem;
using test::Random;
using test::random_activation;
using test::run;
using test::same_bits;
using test::Scratch;

class MoeExpertsRow : public test::PanelRow {
 protected:
  // What follows the sums is the same code for all of GGUF's formats in an arith.
  bool one_of_its_kind() const {
    return !is_block_format(format()) || format() == WeightFormat::kQ4_K;
  }
  static constexpr const char* kStandsFor =
      "q4_k stands for GGUF's formats in what follows the sums";
};

TEST_P(MoeExpertsRow, EqualsItsChainOnEveryThreadCountAndTheReference) {
  Random random(71);
  Context truth(Isa::kReference);
  for (int64_t i = 0; i < test::property_runs(6); ++i) {
    Problem p;
    p.t = random.between(1, random.chance(0.2) ? 60 : 6);
    p.experts = random.between(1, 8);
    p.k = random.between(1, 4);
    p.d = format() == WeightFormat::kMXFP4 ? 32 * random.between(1, 4) : random.between(1, 100);
    p.width = format() == WeightFormat::kMXFP4 ? 32 * random.between(1, 3) : random.between(1, 70);
    if (is_int_format(format()) && random.chance(0.3))  // several blocks of k
      p.t = random.between(1, 3), p.block = int64_t{128} << random.below(3),
      p.d = random.between(p.block / 2, 2 * p.block + 76),
      p.width = random.between(p.block / 3, 3 * p.block / 2);
    p.bias = random.chance(0.5);
    p.mapped = random.chance(0.3);
    p.activation = random_activation(random);
    if (random.chance(0.5))
      p.profile = kRoundingProfiles[random.below(std::ssize(kRoundingProfiles))];
    if (random.chance(0.2)) p.weight_point = WeightPoint::kInput;
    p.then = static_cast<CombineThen>(random.below(3));
    Context context(GetParam().isa, static_cast<int>(random.below(4)));
    Layer layer(*context.device, format(), p, random);
    Matrix start(p.t, p.d, 2, 7);
    start.fill(random);
    Matrix got = start, pieces = start, want = start;
    const Status status = run(context, layer.args(arith(), got));
    ASSERT_TRUE(status.ok()) << status.message();
    chain(context, layer.args(arith(), pieces));
    ASSERT_TRUE(run(truth, layer.args(arith(), want)).ok());
    ASSERT_TRUE(same_bits(got.view(), pieces.view())) << "fused and chain";
    ASSERT_TRUE(same_bits(got.view(), want.view())) << "row and reference";
    ASSERT_TRUE(got.guards_hold());
  }
}

// Many experts go one by one (by_expert.h); few of them, or one with most rows, in phases.
void equals_its_chain(const Kernel<const PanelKernel>& row, WeightFormat format, Arith arith,
                      const Problem& p, int threads, Random& random) {
  Context context(row.isa, threads);
  Layer layer(*context.device, format, p, random);
  Matrix got(p.t, p.d), pieces(p.t, p.d), phases(p.t, p.d);
  ASSERT_TRUE(run(context, layer.args(arith, got)).ok());
  chain(context, layer.args(arith, pieces));
  EXPECT_TRUE(same_bits(got.view(), pieces.view()));
  for (int32_t& id : layer.ids) id = id < p.experts - 3 ? 0 : id;
  ASSERT_TRUE(run(context, layer.args(arith, phases)).ok());
  chain(context, layer.args(arith, pieces));
  EXPECT_TRUE(same_bits(phases.view(), pieces.view())) << "most rows in one";
}
TEST_P(MoeExpertsRow, ExpertByExpertEqualsTheChain) {
  Random random(78);
  Problem p;
  p.experts = 18, p.k = 2, p.t = 30, p.d = 96, p.width = 32;
  p.bias = true;
  equals_its_chain(GetParam(), format(), arith(), p, 2, random);
}
// 8.4 MB of rows go around the caches.
TEST_P(MoeExpertsRow, RowsBeyondTheCachesEqualTheChain) {
  if (GetParam().isa <= Isa::kAmxEmulated || is_cuda(GetParam().isa))
    GTEST_SKIP() << "scalar code stores long rows as it does short ones";
  if (!one_of_its_kind()) GTEST_SKIP() << kStandsFor;
  Random random(79);
  Problem p;
  p.experts = 9, p.k = 2, p.t = 1000, p.d = 1056, p.width = 32;
  equals_its_chain(GetParam(), format(), arith(), p, 1, random);
}
// Every profile, both points of the weight: fused, chain and the scalar reference agree, and the
// profile is really taken (its bits differ from the default's).
TEST_P(MoeExpertsRow, EveryProfileEqualsItsChainAndTheReference) {
  if (!one_of_its_kind()) GTEST_SKIP() << kStandsFor;
  Context context(GetParam().isa, 2), truth(Isa::kReference);
  Random random(77);
  Problem p;
  p.t = 9, p.k = 3, p.d = 96, p.width = 64;
  Layer layer(*context.device, format(), p, random);
  for (const WeightPoint point : {WeightPoint::kOutput, WeightPoint::kInput}) {
    layer.problem.weight_point = point;
    layer.problem.profile = kF32Profile;
    Matrix without(p.t, p.d);
    ASSERT_TRUE(run(context, layer.args(arith(), without)).ok());
    for (const RoundingProfile& profile : kRoundingProfiles) {
      SCOPED_TRACE(profile.name);
      layer.problem.profile = profile;
      Matrix got(p.t, p.d), pieces(p.t, p.d), want(p.t, p.d);
      const Status status = run(context, layer.args(arith(), got));
      ASSERT_TRUE(status.ok()) << status.message();
      chain(context, layer.args(arith(), pieces));
      ASSERT_TRUE(run(truth, layer.args(arith(), want)).ok());
      EXPECT_TRUE(same_bits(got.view(), pieces.view())) << "fused and chain";
      EXPECT_TRUE(same_bits(got.view(), want.view())) << "row and reference";
      EXPECT_EQ(same_bits(got.view(), without.view()), profile.name == kF32Profile.name);
    }
  }
}

TEST_P(MoeExpertsRow, ATokenDoesNotDependOnItsBatch) {
  Random random(72);
  Context context(GetParam().isa, 2);
  Problem p;
  p.t = 30, p.k = 4, p.d = 96, p.width = 64;
  p.profile = parse_rounding_profile("hf").value();
  Layer layer(*context.device, format(), p, random);
  Matrix all(p.t, p.d), alone(1, p.d);
  ASSERT_TRUE(run(context, layer.args(arith(), all)).ok());
  for (const int64_t t : {0, 13, 29}) {
    MoeExpertsArgs args = layer.args(arith(), alone);
    args.x = {layer.x.view().row(t), 1, p.d};
    args.ids = args.ids.subspan(static_cast<size_t>(t * p.k), static_cast<size_t>(p.k));
    args.weights = args.weights.subspan(static_cast<size_t>(t * p.k), static_cast<size_t>(p.k));
    ASSERT_TRUE(run(context, args).ok());
    EXPECT_TRUE(same_bits(alone.view(), {all.view().row(t), 1, p.d, p.d}));
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, MoeExpertsRow, ::testing::ValuesIn(test::all_rows(panel_kernels())),
                         test::RowName());

TEST(MoeExperts, TheTwoProductsMayHaveDifferentFormats) {
  Context context(detect_isa(), 2), truth(Isa::kReference);
  Random random(76);
  Problem p;
  p.t = 17;
  Layer layer(*context.device, WeightFormat::kMXFP4, p, random);
  const Layer other(*context.device, WeightFormat::kBF16, p, random);
  layer.down = other.down;
  for (size_t e = 0; e < layer.down.size(); ++e) layer.down_ptrs[e] = &layer.down[e];
  for (const Arith arith : {Arith::kF32Fma, Arith::kBf16Tile}) {
    Matrix got(p.t, p.d), want(p.t, p.d);
    ASSERT_TRUE(run(context, layer.args(arith, got)).ok());
    ASSERT_TRUE(run(truth, layer.args(arith, want)).ok());
    EXPECT_TRUE(same_bits(got.view(), want.view()));
  }
}

class MoeExpertsOn : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, MoeExpertsOn, ::testing::Values(detect_isa(), Isa::kCudaHost));

TEST_P(MoeExpertsOn, AddsThePairsOfEachExpert) {
  Context context(GetParam());
  Random random(73);
  Problem p;
  p.t = 3;
  Layer layer(*context.device, WeightFormat::kF32, p, random);
  layer.ids = {0, 5, 5, 1, 9, 5};  // 9 is no expert: dropped
  Matrix out(p.t, p.d);
  std::vector<int64_t> counts = {10, 0, 0, 0, 0, 0};
  MoeExpertsArgs args = layer.args(Arith::kF32Fma, out);
  args.counts = counts;
  ASSERT_TRUE(run(context, args).ok());
  EXPECT_EQ(counts, (std::vector<int64_t>{11, 1, 0, 0, 0, 3}));
}

// Sorted by someone else: the same bits, and what that sort left is only read.
TEST_P(MoeExpertsOn, TakesPairsThatAreSortedAlready) {
  Context context(GetParam(), 2);
  Random random(77);
  Problem p;
  p.t = 21, p.mapped = true;
  for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kInt4}) {
    Layer layer(*context.device, format, p, random);
    const Arith arith = panel_arith(format, Compute::kBf16);
    Matrix want(p.t, p.d), got(p.t, p.d);
    MoeExpertsArgs args = layer.args(arith, want);
    ASSERT_TRUE(run(context, args).ok());
    std::vector<int32_t> starts(layer.gate_up.size() + 1), source(layer.ids.size());
    std::vector<int32_t> inverse(layer.ids.size());
    MoeSortArgs sort;
    sort.ids = layer.ids;
    sort.k = p.k;
    sort.experts = p.experts;
    sort.expert_map = layer.map;
    sort.starts = starts;
    sort.source = source;
    sort.inverse = inverse;
    ASSERT_TRUE(context.finish(moe_sort(context.exec, sort)).ok());
    const std::vector<int32_t> before = source;
    args.out = got.view();
    args.expert_map = {};
    args.sorted = {starts, source, inverse};
    const Status status = run(context, args);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(same_bits(got.view(), want.view()));
    EXPECT_EQ(source, before);
  }
}

TEST_P(MoeExpertsOn, ATokenWithoutExpertsGivesZeros) {
  Context context(GetParam());
  Random random(74);
  Problem p;
  p.t = 2;
  Layer layer(*context.device, WeightFormat::kF32, p, random);
  std::fill(layer.ids.begin(), layer.ids.end(), -1);
  Matrix out(p.t, p.d), zeros(p.t, p.d);
  out.fill(random);
  ASSERT_TRUE(run(context, layer.args(Arith::kF32Fma, out)).ok());
  EXPECT_TRUE(same_bits(out.view(), zeros.view()));
}

// Llama 4: the weight on the input passes through the activation, so that it is not the weight on
// the output.
TEST_P(MoeExpertsOn, TheWeightMayStandOnTheInput) {
  Context context(GetParam());
  Random random(78);
  Problem p;
  p.t = 4, p.k = 1;
  Layer layer(*context.device, WeightFormat::kF32, p, random);
  Matrix input(p.t, p.d), output(p.t, p.d), scaled(p.t, p.d), ones(p.t, p.d);
  ASSERT_TRUE(run(context, layer.args(Arith::kF32Fma, output)).ok());
  layer.problem.weight_point = WeightPoint::kInput;
  ASSERT_TRUE(run(context, layer.args(Arith::kF32Fma, input)).ok());
  EXPECT_FALSE(same_bits(input.view(), output.view()));
  layer.problem.weight_point = WeightPoint::kOutput;
  Matrix x = layer.x;
  for (int64_t t = 0; t < p.t; ++t)
    for (int64_t d = 0; d < p.d; ++d) x.at(t, d) *= layer.weights[static_cast<size_t>(t)];
  std::fill(layer.weights.begin(), layer.weights.end(), 1.0f);
  MoeExpertsArgs args = layer.args(Arith::kF32Fma, scaled);
  args.x = x.view();
  ASSERT_TRUE(run(context, args).ok());
  EXPECT_TRUE(same_bits(input.view(), scaled.view()));
  Scratch small(moe_experts_workspace_bytes({p.t, p.k, p.experts, p.d, p.width, Arith::kF32Fma}));
  layer.problem.weight_point = WeightPoint::kInput;
  EXPECT_NE(moe_experts(context.exec, layer.args(Arith::kF32Fma, input), small.workspace())
                .message()
                .find("workspace"),
            std::string::npos);
}

TEST(RoundingProfiles, AreFoundByNameAndListedWhenUnknown) {
  for (const RoundingProfile& profile : kRoundingProfiles)
    EXPECT_EQ(parse_rounding_profile(profile.name).value().name, profile.name);
  EXPECT_EQ(parse_rounding_profile("vllm").status().message(),
            "rounding profile: expected one of f32, hf, aiter, max, tpu, mojo, mojo_quant, sglang, "
            "got \"vllm\"");
}

TEST(MoeExperts, RefusesWrongShapes) {
  Context context(Isa::kReference);
  Random random(75);
  Problem p;
  Layer layer(*context.device, WeightFormat::kF32, p, random);
  Matrix out(p.t, p.d), narrow(p.t, p.d - 1);
  const MoeExpertsArgs good = layer.args(Arith::kF32Fma, out);
  ASSERT_TRUE(run(context, good).ok());
  const auto refused = [&](const MoeExpertsArgs& args, std::string_view word) {
    const Status s = run(context, args);
    EXPECT_NE(s.message().find(word), std::string::npos) << s.message();
    return !s.ok();
  };
  EXPECT_TRUE(refused(layer.args(Arith::kF32Fma, narrow), "D: expected"));
  MoeExpertsArgs bad = good;
  bad.ids = bad.ids.subspan(1);
  EXPECT_TRUE(refused(bad, "ids, weights: expected [T, K] = [5, 2]"));
  bad = good, bad.experts.down = bad.experts.down.subspan(1);
  EXPECT_TRUE(refused(bad, "gate_up, down"));
  bad = good, bad.experts.width = 31;
  EXPECT_TRUE(refused(bad, "gate_up"));
  std::vector<int64_t> counts(2);
  bad = good, bad.counts = counts;
  EXPECT_TRUE(refused(bad, "counts: expected [E] = [6], got [2]"));
  const std::vector<int32_t> starts(7), pairs(10);
  bad = good, bad.sorted = {starts, pairs, std::span(pairs).first(9)};
  EXPECT_TRUE(refused(bad, "sorted: expected starts [E+1] = [7], source and inverse [T*K] = [10]"));
  counts.resize(6);
  bad = good, bad.sorted = {starts, pairs, pairs}, bad.counts = counts;
  EXPECT_TRUE(refused(bad, "belong to the sort before"));
  Scratch small(64);
  EXPECT_NE(moe_experts(context.exec, good, small.workspace()).message().find("workspace"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
