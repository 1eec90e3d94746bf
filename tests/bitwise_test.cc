// Promises 2 and 3 on whole models: the same bytes for every chunk, thread count, batch, run and
// ISA, in f32 and in bf16.
#include "model_runs.h"

namespace sluice::test {
namespace {

struct Setting {
  std::string name;
  Compute compute;
};
void PrintTo(const Setting& s, std::ostream* out) {
  *out << s.name << " " << compute_name(s.compute);
}

class BitwiseTest : public ::testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    case_ = load_case(GetParam().name, GetParam().compute, 2);
    ASSERT_NE(case_.model, nullptr);
    ids_ = case_.golden.at("input_ids").as<int32_t>();
    whole_ = run({.lists = {ids_}, .greedy = 8});
    ASSERT_TRUE(whole_.tensors.contains("logits"));
    ASSERT_TRUE(whole_.tensors.contains("greedy"));
  }
  RunReport run(const RunPlan& plan) { return run_lists(*case_.runtime, *case_.model, plan); }
  // Every tensor of `got` that begins with `prefix`, and nothing else, is that of the whole run.
  void expect_same(const RunReport& got, const std::string& prefix = "") {
    size_t found = 0;
    for (const auto& [name, tensor] : got.tensors) {
      if (!name.starts_with(prefix)) continue;
      ++found;
      const auto it = whole_.tensors.find(name.substr(prefix.size()));
      ASSERT_NE(it, whole_.tensors.end()) << name;
      EXPECT_TRUE(it->second == tensor) << name << " differs";
    }
    EXPECT_EQ(found, whole_.tensors.size());
  }

  LoadedCase case_;
  std::vector<int32_t> ids_;
  RunReport whole_;
};

TEST_P(BitwiseTest, Chunks) {
  for (const int64_t chunk : {1, 7, 64}) {
    SCOPED_TRACE(chunk);
    const RunReport got = run({.lists = {ids_}, .chunk = chunk, .greedy = 8});
    EXPECT_EQ(static_cast<int64_t>(got.rows_per_step.size()),
              ceil_div(static_cast<int64_t>(ids_.size()), chunk));
    EXPECT_EQ(got.rows_per_step[0], std::min<int64_t>(chunk, static_cast<int64_t>(ids_.size())));
    expect_same(got);
  }
}

TEST_P(BitwiseTest, Runs) {
  expect_same(run({.lists = {ids_}, .greedy = 8}));
}

TEST_P(BitwiseTest, Threads) {
  EXPECT_GT(case_.runtime->pool().parallel_loops(), 0) << "two workers never ran";
  const LoadedCase one = load_case(GetParam().name, GetParam().compute, 1);
  ASSERT_NE(one.model, nullptr);
  expect_same(run_lists(*one.runtime, *one.model, {.lists = {ids_}, .greedy = 8}));
  EXPECT_EQ(one.runtime->pool().parallel_loops(), 0);
}

TEST_P(BitwiseTest, Isas) {
  for (const Isa isa : {Isa::kReference, Isa::kAmxEmulated, Isa::kAvx2, Isa::kAvx512,
                        Isa::kAvx512Vnni, Isa::kAvx512Bf16, Isa::kAmx}) {
    if (isa > case_.runtime->isa()) continue;
    SCOPED_TRACE(isa_name(isa));
    expect_same(run({.lists = {ids_}, .greedy = 8, .isa = isa}));
  }
}

TEST_P(BitwiseTest, RaggedBatch) {
  const std::vector<int32_t> head(ids_.begin(), ids_.begin() + 5);
  const std::vector<int32_t> tail(ids_.begin() + 3, ids_.end());
  const RunReport together = run({.lists = {head, ids_, tail}, .chunk = 16, .greedy = 8});
  EXPECT_GT(*std::max_element(together.rows_per_step.begin(), together.rows_per_step.end()), 16);
  expect_same(together, "seq.1.");
  whole_ = run({.lists = {tail}, .greedy = 8});
  expect_same(together, "seq.2.");
}

// Too few KV blocks for all: sequences are preempted and computed again, with the same result.
TEST_P(BitwiseTest, KvPressure) {
  const auto length = static_cast<int64_t>(ids_.size());
  const RunReport pressed = run({.lists = {ids_, ids_, ids_},
                                 .chunk = 16,
                                 .kv_tokens = round_up(length + 8, kKvBlock) + 48,
                                 .greedy = 8});
  EXPECT_GT(pressed.stats.preemptions, 0);
  for (const char* prefix : {"seq.0.", "seq.1.", "seq.2."}) expect_same(pressed, prefix);
}

// Under every rounding profile: chunks, threads, neighbours and ISA leave no trace, and the profile
// is really taken.
class ProfileTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ProfileTest, EveryProfileIsInvariant) {
  Tensor plain;
  for (const RoundingProfile& profile : kRoundingProfiles) {
    SCOPED_TRACE(profile.name);
    const auto load = [&](int threads) {
      return load_case(GetParam(), Compute::kBf16, threads, "cpu", "", profile);
    };
    const LoadedCase two = load(2), one = load(1);
    ASSERT_NE(two.model, nullptr);
    ASSERT_NE(one.model, nullptr);
    EXPECT_EQ(two.model->profile.name, profile.name);
    const auto ids = two.golden.at("input_ids").as<int32_t>();
    const std::vector<int32_t> head(ids.begin(), ids.begin() + 5);
    const Tensors whole = run_lists(*two.runtime, *two.model, {.lists = {ids}}).tensors;
    const auto expect_same = [&](const LoadedCase& c, const RunPlan& plan,
                                 const std::string& prefix) {
      const Tensors got = run_lists(*c.runtime, *c.model, plan).tensors;
      for (const auto& [name, tensor] : whole)
        EXPECT_TRUE(got.contains(prefix + name) && got.at(prefix + name) == tensor) << name;
    };
    expect_same(two, {.lists = {ids}, .chunk = 7}, "");
    if (two.runtime->isa() > Isa::kAvx2) expect_same(two, {.lists = {ids}, .isa = Isa::kAvx2}, "");
    expect_same(one, {.lists = {head, ids}, .chunk = 16}, "seq.1.");
    if (profile.name == kF32Profile.name)
      plain = whole.at("logits");
    else
      EXPECT_FALSE(whole.at("logits") == plain) << "the default's bits: was it taken?";
  }
}

std::string test_name(std::string name) {
  for (char& ch : name)
    if (ch == '-') ch = '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Models, ProfileTest, ::testing::ValuesIn(golden_cases()),
                         [](const auto& test) { return test_name(test.param); });

std::vector<Setting> settings() {
  std::vector<Setting> out;
  for (const std::string& name : golden_cases())
    for (const Compute compute : {Compute::kF32, Compute::kBf16}) out.push_back({name, compute});
  return out;
}

INSTANTIATE_TEST_SUITE_P(Models, BitwiseTest, ::testing::ValuesIn(settings()),
                         [](const auto& test) {
                           return test_name(test.param.name) + "_" +
                                  std::string(compute_name(test.param.compute));
                         });

}  // namespace
}  // namespace sluice::test
