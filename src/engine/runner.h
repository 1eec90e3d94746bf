// Runner: one step on the device, from a plan to logits and drawn tokens.
#pragma once

#include <map>

#include "engine/batch.h"

namespace sluice {

class Runner {
 public:
  // `isa`: the widest kernels allowed, at most what the runtime offers.
  static Result<std::unique_ptr<Runner>> create(Runtime& runtime, const Model& model,
                                                const KvBlocks& kv, const BatchCapacity& capacity,
                                                Isa isa);

  Status run(std::span<const Chunk> plan, const Tap* tap);
  // Of the last step: one row per sequence of batch().drawing(), in that order.
  std::span<const SampleRow> drawn() const { return rows_; }
  const BatchBuilder& batch() const { return *batch_; }
  // Rows of the last step on the host; from a device only when the step scored rows.
  ConstMatrixF32 logits() const {
    return host_logits_.empty()
               ? state_->logits()
               : ConstMatrixF32(host_logits_.data(), state_->logits().rows, state_->logits().cols);
  }
  const ForwardState& state() const { return *state_; }
  // Ids that end an answer unless a request ignores them.
  const std::vector<int32_t>& eos_ids() const { return eos_ids_; }

 private:
  Status compute(std::span<const Chunk> plan, const Tap* tap);
  // A decode step of a device: recorded once per bucket, then replayed.
  Status replay(const Batch& batch, int64_t bucket);
  Status fetch_logits();
  Status draw();

  ExecContext context_;
  Device* device_ = nullptr;
  int64_t most_rows_ = 0;  // of a bucket
  struct Recorded {
    std::unique_ptr<Graph> graph;
    RouteSortStats routes;  // of one step
  };
  std::map<int64_t, Recorded> graphs_;  // by bucket
  std::vector<float> host_logits_;
  const Model* model_ = nullptr;
  std::vector<int32_t> eos_ids_;
  std::unique_ptr<BatchBuilder> batch_;
  std::unique_ptr<ForwardState> state_;
  Status allocate_sampling();

  Buffer sampling_;                     // workspace of the draw
  std::shared_ptr<std::byte> staging_;  // of a device: its way there and back
  size_t staging_bytes_ = 0;
  std::vector<SampleRow> rows_;
  std::vector<SamplingParams> banned_;  // parameters of rows that must not end yet
};

}  // namespace sluice
