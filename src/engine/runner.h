// Runner: one step on the device, from a plan to logits and drawn tokens.
#pragma once

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
  ConstMatrixF32 logits() const { return state_->logits(); }
  const ForwardState& state() const { return *state_; }
  // Ids that end an answer unless a request ignores them.
  const std::vector<int32_t>& eos_ids() const { return eos_ids_; }

 private:
  Status draw();

  ExecContext context_;
  const Model* model_ = nullptr;
  std::vector<int32_t> eos_ids_;
  std::unique_ptr<BatchBuilder> batch_;
  std::unique_ptr<ForwardState> state_;
  Buffer sampling_;  // workspace of the draw
  std::vector<SampleRow> rows_;
  std::vector<SamplingParams> banned_;  // parameters of rows that must not end yet
};

}  // namespace sluice
