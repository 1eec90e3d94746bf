// forward: one step of the whole model over a ragged batch with a paged KV cache.
//
// Reads no device value on the host: counts come in the Batch, which the engine fills. A sequence's
// results do not depend on the other sequences or on how its prompt was cut into steps.
#pragma once

#include <span>
#include <vector>

#include "device/device.h"
#include "model/model.h"
#include "ops/kv_write/kv_cache.h"
#include "ops/moe_route_sort/moe_route_sort.h"
#include "tensor/view.h"

namespace sluice {

// The arrays of a Batch lie in the memory of the device that runs the step. Rows may be padded:
// a row beyond query_starts[S] belongs to no sequence, has slot -1 and gives nothing of use.
//
// What one KV group needs in a step. slots[t] = block * 16 + offset for the new token t.
struct BatchKvGroup {
  std::span<const int32_t> slots;          // [T]
  MatrixView<const int32_t> block_tables;  // [S, max_blocks]
  std::vector<KvCacheView> caches;         // one per layer of the group
};
struct Batch {
  std::span<const int32_t> ids;           // [T]
  std::span<const int32_t> positions;     // [T]
  std::span<const int32_t> query_starts;  // [S+1]
  std::span<const int32_t> logit_rows;    // rows that want logits, any number per sequence
  std::vector<BatchKvGroup> groups;       // one per ModelSpec::kv_groups
};

// The one window into a step: --trace, the expert picture, metrics. Null members are skipped.
struct Tap {
  // hidden states [T, D]: layer 0 = after the embedding, N = after layer N-1.
  std::function<void(int layer, ConstMatrixF32 hidden)> hidden;
  // router ids and weights [T, K] of a layer that has experts.
  std::function<void(int layer, int64_t k, std::span<const int32_t> ids,
                     std::span<const float> weights)>
      router;
};

// Buffers of forward for at most max_tokens rows and max_logit_rows rows of logits, allocated once.
class ForwardState {
 public:
  static Result<std::unique_ptr<ForwardState>> create(Runtime& runtime, const Model& model,
                                                      int64_t max_tokens, int64_t max_logit_rows);
  ~ForwardState();
  size_t bytes() const;
  // [logit_rows, V] of the last step.
  ConstMatrixF32 logits() const;
  // How layers were routed: in one launch with their sort, or one after the other.
  RouteSortStats routes() const;
  // A recorded step that gives so many rows of logits, and routed so, was done again.
  void replayed(int64_t logit_rows, const RouteSortStats& routes);
  // Pairs per (layer, expert) since creation; empty vector for dense layers.
  std::vector<std::vector<int64_t>> expert_counts() const;

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  ForwardState();
  std::unique_ptr<Impl> impl_;
};

// What create() would allocate for a model of this shape with `workers` threads.
size_t forward_state_bytes(const ModelSpec& spec, int workers, int64_t max_tokens,
                           int64_t max_logit_rows);

Status forward(const ExecContext& context, const Model& model, const Batch& batch,
               ForwardState& state, const Tap* tap);

}  // namespace sluice
