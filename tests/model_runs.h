// Running the small golden checkpoints through the engine, for the tests that compare whole runs.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cli/score_results.h"
#include "engine/engine.h"
#include "weights/tensor_source.h"

namespace sluice::test {

inline const std::vector<std::string>& golden_cases() {
  static const std::vector<std::string> kCases = {"qwen3moe-a", "qwen3moe-b", "gemma4-a",
                                                  "gemma4-b",   "gptoss-a",   "gptoss-b"};
  return kCases;
}

inline std::string golden_dir(const std::string& name) {
  return SLUICE_SOURCE_DIR "/tests/goldens/models/" + name;
}

// Named tensors as bytes, with their shapes.
struct Tensor {
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
  bool operator==(const Tensor& o) const { return shape == o.shape && bytes == o.bytes; }
  template <class T>
  std::vector<T> as() const {
    std::vector<T> v(bytes.size() / sizeof(T));
    std::memcpy(v.data(), bytes.data(), v.size() * sizeof(T));
    return v;
  }
};
using Tensors = std::map<std::string, Tensor>;

inline Tensors read_tensors(const std::string& path) {
  Tensors out;
  auto source = open_tensor_source(path);
  EXPECT_TRUE(source.ok()) << source.status().message();
  if (!source.ok()) return out;
  for (const TensorView& v : (*source)->tensors())
    out[v.name] = {v.shape, {v.data, v.data + v.bytes}};
  return out;
}

struct RunPlan {
  std::vector<std::vector<int32_t>> lists;
  int64_t chunk = 512;
  int64_t batch = 0;  // 0: all lists' chunks together
  int64_t kv_tokens = 0;
  int64_t greedy = 0;
  std::optional<Isa> isa;
  bool trace = true;
};
struct RunReport {
  Tensors tensors;
  EngineStats stats;
  std::vector<int64_t> rows_per_step;
};

// Scores the lists as `sluice score` does. Every tensor that it would write is in the report.
inline RunReport run_lists(Runtime& runtime, const Model& model, const RunPlan& plan) {
  RunReport report;
  const auto n = static_cast<int64_t>(plan.lists.size());
  int64_t tokens = 0;
  for (const auto& l : plan.lists)
    tokens += round_up(static_cast<int64_t>(l.size()) + plan.greedy, kKvBlock);
  auto engine = Engine::create(runtime, model,
                               {.max_batch_tokens = plan.batch > 0 ? plan.batch : plan.chunk * n,
                                .chunk = plan.chunk,
                                .max_sequences = n,
                                .kv_tokens = plan.kv_tokens > 0 ? plan.kv_tokens : tokens,
                                .scoring = true,
                                .isa = plan.isa});
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  if (!engine.ok()) return report;
  ScoreCollector collector(model.spec, **engine);
  for (const auto& list : plan.lists) {
    const auto id = (*engine)->submit({.prompt = list,
                                       .sampling = {.temperature = 0},
                                       .max_new_tokens = plan.greedy,
                                       .ignore_eos = true,
                                       .score_prompt = true});
    EXPECT_TRUE(id.ok()) << id.status().message();
    if (!id.ok()) return report;
    collector.expect(*id, static_cast<int64_t>(list.size()), plan.trace);
  }
  const Tap tap = collector.tap();
  StepCounts counts;
  while ((*engine)->busy()) {
    auto step = (*engine)->step(plan.trace ? &tap : nullptr);
    EXPECT_TRUE(step.ok()) << step.status().message();
    if (!step.ok()) return report;
    counts.add(*step);
    collector.take(*step);
  }
  report.rows_per_step = counts.rows_per_step;
  report.stats = (*engine)->stats();
  for (const OutputTensor& t : collector.tensors(n > 1)) {
    const auto* data = static_cast<const std::byte*>(t.data);
    report.tensors[t.name] = {t.shape, {data, data + t.bytes}};
  }
  return report;
}

struct LoadedCase {
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Model> model;
  Tensors golden;
};
// From `store`, a packed store of the case, where one is given.
inline LoadedCase load_case(const std::string& name, Compute compute, int threads = 0,
                            const std::string& device = "cpu", const std::string& store = "",
                            const RoundingProfile& profile = kF32Profile) {
  LoadedCase c;
  auto runtime = Runtime::create({.threads = threads, .device = device});
  EXPECT_TRUE(runtime.ok()) << runtime.status().message();
  if (!runtime.ok()) return c;
  c.runtime = std::move(runtime).value();
  auto model = load_model(*c.runtime, store.empty() ? golden_dir(name) : store,
                          {.compute = compute, .profile = profile});
  EXPECT_TRUE(model.ok()) << model.status().message();
  if (model.ok()) c.model = std::move(model).value();
  c.golden = read_tensors(golden_dir(name) + "/golden.safetensors");
  return c;
}

}  // namespace sluice::test
