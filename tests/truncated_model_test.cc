// A model whose file shrinks while it is in use: the step fails with a sentence, nothing dies.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "engine/engine.h"
#include "model_runs.h"
#include "weights/test_files.h"

namespace sluice {
namespace {

TEST(TruncatedModel, AStepThatReadsTheLostPartFailsCleanly) {
  const ScratchDir dir;
  for (const char* file : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(std::filesystem::path(test::golden_dir("qwen3moe-a")) / file,
                               dir / file);
  auto runtime = Runtime::create({.threads = 2});
  ASSERT_TRUE(runtime.ok());
  auto model = load_model(**runtime, dir.path(), {});
  ASSERT_TRUE(model.ok()) << model.status().message();
  ASSERT_EQ((*model)->embedding.storage, StorageKind::kMapped);
  auto engine = Engine::create(**runtime, **model, {.kv_tokens = 256});
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const auto submit = [&](std::vector<int32_t> prompt) {
    const auto id = (*engine)->submit({.prompt = std::move(prompt), .max_new_tokens = 2});
    EXPECT_TRUE(id.ok()) << id.status().message();
  };
  submit({1, 2, 3});
  auto step = (*engine)->step();
  ASSERT_TRUE(step.ok()) << step.status().message();
  // The embedding lies behind the head: everything after the first page is gone.
  ASSERT_EQ(::truncate((dir / "model.safetensors").c_str(), 4096), 0);
  submit({300, 200, 100});
  bool failed = false;
  for (int i = 0; i < 10 && (*engine)->busy() && !failed; ++i) {
    step = (*engine)->step();
    failed = !step.ok();
  }
  ASSERT_TRUE(failed);
  EXPECT_EQ(step.status().code(), StatusCode::kDataLoss);
  EXPECT_NE(step.status().message().find(dir / "model.safetensors"), std::string::npos)
      << step.status().message();
  EXPECT_NE(step.status().message().find("truncated"), std::string::npos);
}

}  // namespace
}  // namespace sluice
