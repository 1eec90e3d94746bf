// What a device may do to a run: a kernel faults, memory ends, a model does not fit. One sentence
// each, every request ends, nothing hangs. The device is the CPU in a GPU's place (cuda_host), told
// when to fail; what CUDA's own codes become is tested beside device/cuda.
#include "device/cuda/cuda.h"
#include "model_runs.h"

namespace sluice::test {
namespace {

constexpr const char* kFault =
    "attention: fault on the CUDA device: an illegal memory access was encountered; the process "
    "cannot use it again";

// What the device does next.
struct Trouble {
  int steps = -1;            // synchronisations until a kernel has faulted; negative: none does
  size_t room = SIZE_MAX;    // bytes that there are
  size_t memory = SIZE_MAX;  // bytes that the device claims to have
};

class FaultyStream : public Stream {
 public:
  FaultyStream(std::unique_ptr<Stream> inner, const std::shared_ptr<Trouble>& trouble)
      : inner_(std::move(inner)), trouble_(trouble) {}
  // A lost context stays lost.
  Status synchronize() override {
    if (trouble_->steps == 0) return internal_error("{}", kFault);
    if (trouble_->steps > 0) --trouble_->steps;
    return inner_->synchronize();
  }
  Status begin_capture() override { return inner_->begin_capture(); }
  Result<std::unique_ptr<Graph>> end_capture() override { return inner_->end_capture(); }

 private:
  std::unique_ptr<Stream> inner_;
  std::shared_ptr<Trouble> trouble_;
};

class FaultyDevice : public Device {
 public:
  explicit FaultyDevice(const std::shared_ptr<Trouble>& trouble)
      : inner_(make_emulated_cuda_device()), trouble_(trouble) {}
  DeviceKind kind() const override { return inner_->kind(); }
  const std::string& name() const override { return inner_->name(); }
  Result<Buffer> allocate(size_t bytes, std::string_view what) override {
    const size_t taken = inner_->allocated_bytes();
    if (taken + bytes > trouble_->room)
      return resource_exhausted("{}: {} bytes asked for on {}, {} of {} are free", what, bytes,
                                name(), trouble_->room - taken, trouble_->room);
    return inner_->allocate(bytes, what);
  }
  void release(std::byte* data, size_t bytes) override { inner_->release(data, bytes); }
  size_t allocated_bytes() const override { return inner_->allocated_bytes(); }
  size_t peak_bytes() const override { return inner_->peak_bytes(); }
  size_t memory_bytes() const override {
    return std::min(trouble_->memory, inner_->memory_bytes());
  }
  Status upload(std::byte* to, const void* from, size_t bytes, Stream* stream) override {
    return inner_->upload(to, from, bytes, stream);
  }
  Status download(void* to, const std::byte* from, size_t bytes, Stream* stream) override {
    return inner_->download(to, from, bytes, stream);
  }
  Result<std::unique_ptr<Stream>> make_stream() override {
    SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Stream> inner, inner_->make_stream());
    return std::unique_ptr<Stream>(std::make_unique<FaultyStream>(std::move(inner), trouble_));
  }
  Result<std::unique_ptr<StreamEvent>> make_event() override { return inner_->make_event(); }
  Result<std::shared_ptr<std::byte>> allocate_staging(size_t bytes,
                                                      std::string_view what) override {
    return inner_->allocate_staging(bytes, what);
  }

 private:
  std::unique_ptr<Device> inner_;
  std::shared_ptr<Trouble> trouble_;
};

class DeviceFailure : public ::testing::Test {
 protected:
  void SetUp() override {
    auto runtime = Runtime::emulated(std::make_unique<FaultyDevice>(trouble_), 2);
    ASSERT_TRUE(runtime.ok()) << runtime.status().message();
    runtime_ = std::move(runtime).value();
  }
  Result<std::unique_ptr<Model>> load() {
    return load_model(*runtime_, golden_dir("qwen3moe-a"), {.compute = Compute::kBf16});
  }
  void open(int64_t sequences) {
    auto model = load();
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_ = std::move(model).value();
    auto engine = Engine::create(*runtime_, *model_,
                                 {.max_sequences = sequences, .kv_tokens = 32 * sequences});
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    engine_ = std::move(engine).value();
  }
  // Requests that would run for long.
  void submit(int count, bool biased) {
    for (int i = 0; i < count; ++i) {
      Request request{.prompt = {1, 5, 9, 2}, .max_new_tokens = 8, .ignore_eos = true};
      if (biased) request.sampling.logit_bias = {{7 + i % 100, 1.5f}};
      const auto id = engine_->submit(std::move(request));
      ASSERT_TRUE(id.ok()) << id.status().message();
    }
  }
  // Steps until one fails; empty if none does.
  std::string failure() {
    for (int steps = 0; engine_->busy() && steps < 100; ++steps)
      if (const auto step = engine_->step(); !step.ok()) return step.status().message();
    return "";
  }
  // The finish events that follow a failed step, each of a request that failed.
  int failed_requests() {
    const auto step = engine_->step();
    EXPECT_TRUE(step.ok());
    if (!step.ok()) return 0;
    int failed = 0;
    for (const Event& e : step->events) failed += e.finish == FinishReason::kFailed ? 1 : 0;
    EXPECT_FALSE(engine_->busy());
    for (size_t g = 0; g < engine_->kv().groups(); ++g)
      EXPECT_EQ(engine_->kv().pool(g).free(), engine_->kv().pool(g).size()) << "group " << g;
    return failed;
  }

  std::shared_ptr<Trouble> trouble_ = std::make_shared<Trouble>();
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(DeviceFailure, AKernelFaultEndsTheRunInASentence) {
  open(3);
  submit(3, false);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(engine_->step().ok());
  trouble_->steps = 0;
  EXPECT_EQ(failure(), kFault);
  EXPECT_EQ(failed_requests(), 3);
  // The device stays lost: a request is taken, and ends in the same sentence.
  submit(1, false);
  EXPECT_EQ(failure(), kFault);
  EXPECT_EQ(failed_requests(), 1);
}

TEST_F(DeviceFailure, MemoryThatEndsInMidRunFailsThatStepOnly) {
  // So many biased rows take more than the engine set aside for draws.
  constexpr int kRows = 200;
  open(kRows);
  submit(kRows, true);
  trouble_->room = runtime_->device().allocated_bytes() + 1024;
  const std::string said = failure();
  EXPECT_EQ(said.find("sampling: "), 0u) << said;
  EXPECT_NE(said.find("bytes asked for on cuda_host, 1024 of "), std::string::npos) << said;
  EXPECT_EQ(failed_requests(), kRows);
  trouble_->room = SIZE_MAX;
  submit(kRows, true);
  EXPECT_EQ(failure(), "");
}

TEST_F(DeviceFailure, AnEngineThatFindsNoRoomSaysWhatFor) {
  const auto model = load();
  ASSERT_TRUE(model.ok()) << model.status().message();
  trouble_->room = runtime_->device().allocated_bytes() + 4096;
  const auto engine = Engine::create(*runtime_, **model, {.kv_tokens = 512});
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(engine.status().message().find("bytes asked for on cuda_host"), std::string::npos)
      << engine.status().message();
}

TEST_F(DeviceFailure, AModelThatDoesNotFitIsRefusedWithBothNumbers) {
  trouble_->memory = 100000;
  const auto model = load();
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(model.status().message().find("100000"), std::string::npos) << model.status().message();
}

}  // namespace
}  // namespace sluice::test
