// The small checkpoints against what Hugging Face transformers computes for them
// (tests/goldens/models): exact ids and tokens in f32, an honest drift in bf16.
#include <cmath>

#include "base/fp.h"
#include "model_runs.h"
#include "ops/kernel_table.h"
#include "ops/matmul/panels.h"

namespace sluice::test {
namespace {

constexpr double kLogitsLimit = 5e-4, kHiddenLimit = 5e-4, kWeightsLimit = 3e-5;

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = a.size() == b.size() ? 0 : HUGE_VAL;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - b[i]);
    worst = d <= worst ? worst : d;  // a NaN becomes the worst
  }
  return worst;
}

double mean_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = a.size() == b.size() ? 0 : HUGE_VAL;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i)
    sum += std::fabs(static_cast<double>(a[i]) - b[i]);
  return sum / static_cast<double>(a.size());
}

std::vector<float> widen(const std::vector<uint16_t>& v) {
  std::vector<float> out;
  for (const uint16_t x : v) out.push_back(static_cast<float>(bf16::from_bits(x)));
  return out;
}

class GoldenTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, F32GivesTheSameIdsAndTokensAndNearlyTheSameNumbers) {
  LoadedCase c = load_case(GetParam(), Compute::kF32);
  ASSERT_NE(c.model, nullptr);
  const auto ids = c.golden.at("input_ids").as<int32_t>();
  const auto greedy = c.golden.at("greedy").as<int32_t>();
  const RunReport run = run_lists(*c.runtime, *c.model,
                                  {.lists = {ids}, .greedy = static_cast<int64_t>(greedy.size())});
  int compared = 0;
  for (const auto& [name, golden] : c.golden) {
    if (name == "input_ids" || name == "logits_bf16") continue;
    const auto it = run.tensors.find(name);
    ASSERT_NE(it, run.tensors.end()) << name;
    EXPECT_EQ(it->second.shape, golden.shape) << name;
    ++compared;
    if (name == "greedy" || name.ends_with(".ids")) {
      EXPECT_EQ(it->second.as<int32_t>(), golden.as<int32_t>()) << name;
      continue;
    }
    const double limit = name == "logits"             ? kLogitsLimit
                         : name.starts_with("hidden") ? kHiddenLimit
                                                      : kWeightsLimit;
    EXPECT_LE(largest_difference(it->second.as<float>(), golden.as<float>()), limit) << name;
  }
  // Nothing was left out on either side.
  EXPECT_EQ(run.tensors.size(), static_cast<size_t>(compared));
  EXPECT_EQ(run.rows_per_step, (std::vector<int64_t>{static_cast<int64_t>(ids.size())}));
}

// Under profile hf, too: its roundings add to the others' and do not bring the run nearer to
// transformers' own, which rounds the residual stream and every operator besides.
TEST_P(GoldenTest, Bf16DriftsAsMuchAsAnHonestBf16Run) {
  for (const RoundingProfile& profile : {kF32Profile, parse_rounding_profile("hf").value()}) {
    SCOPED_TRACE(profile.name);
    const LoadedCase c = load_case(GetParam(), Compute::kBf16, 0, "cpu", "", profile);
    ASSERT_NE(c.model, nullptr);
    const RunReport run =
        run_lists(*c.runtime, *c.model, {.lists = {c.golden.at("input_ids").as<int32_t>()}});
    const auto exact = c.golden.at("logits").as<float>();
    const double theirs = mean_difference(widen(c.golden.at("logits_bf16").as<uint16_t>()), exact);
    const double ours = mean_difference(run.tensors.at("logits").as<float>(), exact);
    EXPECT_GE(ours, 0.2 * theirs) << "too exact: did f32 kernels run?";
    EXPECT_LE(ours, 2.0 * theirs);
    RecordProperty("drift_ratio_" + std::string(profile.name), std::to_string(ours / theirs));

    // The kernels that ran follow bf16_tile, on the weights as they are packed.
    for (const PackedMatrix* w : {&c.model->head, &c.model->layers[0].attention.q}) {
      const auto* kernel =
          select_panel_kernel(c.runtime->isa(), w->format, arith_of(c.model->compute));
      ASSERT_NE(kernel, nullptr);
      EXPECT_EQ(kernel->arith, "bf16_tile");
      EXPECT_EQ(kernel->in, "bf16");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest, ::testing::ValuesIn(golden_cases()),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& ch : name)
                             if (ch == '-') ch = '_';
                           return name;
                         });

}  // namespace
}  // namespace sluice::test
