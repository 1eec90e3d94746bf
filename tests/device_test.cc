// Promise 4 on whole models: a device gives the CPU's bytes. "cuda_host" runs the bodies of the
// CUDA kernels on the CPU, behind the same uploads, downloads and padded batches; "cuda" is a GPU.
#include "device/cuda/cuda.h"
#include "model/pack_store.h"
#include "model_runs.h"
#include "weights/test_files.h"

namespace sluice::test {
namespace {

struct Setting {
  std::string name, device;
  Compute compute;
  std::optional<WeightFormat> weights = {};  // of the experts of a packed store
  RoundingProfile profile = {};
  std::string weights_name() const {
    return weights ? fmt::format("{}_", weight_format_name(*weights)) : "";
  }
  std::string profile_name() const {
    return profile.name == kF32Profile.name ? "" : fmt::format("_{}", profile.name);
  }
};
void PrintTo(const Setting& s, std::ostream* out) {
  *out << s.name << " " << s.weights_name() << compute_name(s.compute) << " on " << s.device
       << ", profile " << s.profile.name;
}

class DeviceTest : public ::testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    const Setting& s = GetParam();
    if (s.device == "cuda")
      if (const auto devices = list_cuda_devices(); !devices.ok())
        GTEST_SKIP() << s.device << ": " << devices.status().message();
    const std::string store = s.weights ? dir_ / "store" : "";
    if (s.weights) {
      const auto packer = Runtime::create({.threads = 2}).value();
      const auto packed = pack_store(*packer, golden_dir(s.name), store, {.weights = *s.weights});
      ASSERT_TRUE(packed.ok()) << packed.status().message();
    }
    cpu_ = load_case(s.name, s.compute, 2, "cpu", store, s.profile);
    device_ = load_case(s.name, s.compute, 2, s.device, store, s.profile);
    ASSERT_NE(cpu_.model, nullptr);
    ASSERT_NE(device_.model, nullptr);
    ids_ = cpu_.golden.at("input_ids").as<int32_t>();
  }
  void expect_same(const RunPlan& plan) {
    const RunReport want = run_lists(*cpu_.runtime, *cpu_.model, plan);
    const RunReport got = run_lists(*device_.runtime, *device_.model, plan);
    ASSERT_FALSE(want.tensors.empty());
    ASSERT_EQ(want.tensors.size(), got.tensors.size());
    for (const auto& [name, tensor] : want.tensors)
      EXPECT_TRUE(got.tensors.at(name) == tensor) << name << " differs";
    EXPECT_EQ(want.rows_per_step, got.rows_per_step);
  }

  ScratchDir dir_;
  LoadedCase cpu_, device_;
  std::vector<int32_t> ids_;
};

TEST_P(DeviceTest, TracedRun) {
  expect_same({.lists = {ids_}, .chunk = 17, .greedy = 4});
}

// Three sequences that decode together: steps are padded to a bucket of four, and replayed.
TEST_P(DeviceTest, RaggedBatchInBuckets) {
  const std::vector<int32_t> head(ids_.begin(), ids_.begin() + 5);
  const std::vector<int32_t> tail(ids_.begin() + 3, ids_.end());
  expect_same({.lists = {head, ids_, tail}, .chunk = 64, .greedy = 6, .trace = false});
}

std::vector<Setting> settings() {
  std::vector<Setting> out;
  for (const std::string& name : golden_cases())
    for (const char* device : {"cuda_host", "cuda"})
      for (const Compute compute : {Compute::kF32, Compute::kBf16})
        out.push_back({name, device, compute});
  for (const std::string& name : golden_cases())
    for (const char* device : {"cuda_host", "cuda"})
      for (const WeightFormat weights : {WeightFormat::kInt4, WeightFormat::kInt8})
        out.push_back({name, device, Compute::kBf16, weights});
  for (const std::string& name : golden_cases())
    for (const char* device : {"cuda_host", "cuda"})
      out.push_back({name, device, Compute::kBf16, {}, parse_rounding_profile("hf").value()});
  return out;
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceTest, ::testing::ValuesIn(settings()), [](const auto& test) {
  std::string name =
      fmt::format("{}_{}_{}{}{}", test.param.name, test.param.device, test.param.weights_name(),
                  compute_name(test.param.compute), test.param.profile_name());
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// Decode steps route and sort in one go; a prompt beyond the budget does one after the other, with
// the same result as in parts that are within it.
TEST(Routes, AreSortedInOneGoUpToTheBudget) {
  Tensors want;
  for (const char* device : {"cpu", "cuda_host"})
    for (const int64_t chunk : {1024, 200}) {
      LoadedCase c = load_case("qwen3moe-a", Compute::kBf16, 2, device);
      ASSERT_NE(c.model, nullptr);
      const auto layers = static_cast<int64_t>(c.model->spec.layers.size());
      const int64_t budget = moe_route_sort_budget(c.model->spec.layers[0].moe->experts);
      std::vector<int32_t> prompt;
      for (int64_t i = 0; i < budget + 30; ++i)
        prompt.push_back(static_cast<int32_t>((i * i + 7 * i) % c.model->spec.vocabulary));
      const RunReport got = run_lists(
          *c.runtime, *c.model, {.lists = {prompt}, .chunk = chunk, .greedy = 4, .trace = false});
      if (want.empty()) want = got.tensors;
      ASSERT_FALSE(want.empty());
      EXPECT_TRUE(got.tensors == want) << device << ", parts of " << chunk;
      const int64_t chained = chunk > budget ? layers : 0;
      EXPECT_EQ(got.stats.routes.chained_calls, chained) << device;
      EXPECT_EQ(got.stats.routes.fused_calls, layers * got.stats.steps - chained) << device;
    }
}

}  // namespace
}  // namespace sluice::test
