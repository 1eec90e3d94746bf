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
  std::optional<StoreFormat> weights = {};  // of the experts of a packed store
  std::string weights_name() const {
    return weights ? std::string(store_format_name(*weights)) + "_" : "";
  }
};
void PrintTo(const Setting& s, std::ostream* out) {
  *out << s.name << " " << s.weights_name() << compute_name(s.compute) << " on " << s.device;
}

class DeviceTest : public ::testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    const Setting& s = GetParam();
    if (golden_dir(s.name).empty())
      GTEST_SKIP() << "no golden case " << s.name << " in tests/goldens/models or ../shared";
    if (s.device == "cuda")
      if (const auto devices = list_cuda_devices(); !devices.ok())
        GTEST_SKIP() << s.device << ": " << devices.status().message();
    const std::string store = s.weights ? dir_ / "store" : "";
    if (s.weights) {
      const auto packer = Runtime::create({.threads = 2}).value();
      const auto packed = pack_store(*packer, golden_dir(s.name), store, {.weights = *s.weights});
      ASSERT_TRUE(packed.ok()) << packed.status().message();
    }
    cpu_ = load_case(s.name, s.compute, 2, "cpu", store);
    device_ = load_case(s.name, s.compute, 2, s.device, store);
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
      for (const StoreFormat weights : {StoreFormat::kInt4, StoreFormat::kInt8})
        out.push_back({name, device, Compute::kBf16, weights});
  return out;
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceTest, ::testing::ValuesIn(settings()), [](const auto& test) {
  std::string name = test.param.name + "_" + test.param.device + "_" + test.param.weights_name() +
                     std::string(compute_name(test.param.compute));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace sluice::test
