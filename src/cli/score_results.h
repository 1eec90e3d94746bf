// What `score` gathers while the engine runs: logits, traces, greedy tokens, and how it ran.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace sluice {

// Steps as they were: what a test looks at to know that chunks, batches and threads really ran.
struct StepCounts {
  std::vector<int64_t> rows_per_step;  // steps that computed rows of the input
  int64_t greedy_steps = 0;            // steps that only continued it
  void add(const StepOutput& step) {
    if (step.prompt_rows > 0)
      rows_per_step.push_back(step.rows);
    else
      ++greedy_steps;
  }
};

// The results of one list of ids.
struct ScoredList {
  int64_t tokens = 0;
  std::vector<float> logits;               // [T, V]
  std::vector<std::vector<float>> hidden;  // per stage: [T, D]
  struct Router {
    int64_t k = 0;
    std::vector<int32_t> ids;  // [T, K]
    std::vector<float> weights;
  };
  std::map<int, Router> routers;  // by layer
  std::vector<int32_t> greedy;
};

// A tensor to be written; the data stay where they are.
struct OutputTensor {
  std::string name;
  bool is_f32 = true;  // else i32
  std::vector<int64_t> shape;
  const void* data = nullptr;
  size_t bytes = 0;
};

class ScoreCollector {
 public:
  ScoreCollector(const ModelSpec& spec, const Engine& engine) : spec_(spec), engine_(engine) {}

  void expect(RequestId id, int64_t tokens, bool trace);
  void take(const StepOutput& step);
  // The tap that fills the traces.
  Tap tap();
  // "logits", "hidden.N", "router.N.ids" ..., with "seq.N." in front when `ragged`.
  std::vector<OutputTensor> tensors(bool ragged) const;

 private:
  const ModelSpec& spec_;
  const Engine& engine_;
  std::map<RequestId, size_t> index_;
  std::vector<ScoredList> lists_;
};

}  // namespace sluice
