// Batch builder: the plan of a step as the capacity-padded arrays that forward reads.
#pragma once

#include "engine/sequence.h"
#include "model/forward.h"

namespace sluice {

struct BatchCapacity {
  int64_t tokens = 0, sequences = 0, logit_rows = 0, blocks = 0;  // blocks: of a table's row
};

class BatchBuilder {
 public:
  static Result<std::unique_ptr<BatchBuilder>> create(Device& device, const KvBlocks& kv,
                                                      const BatchCapacity& capacity);

  // Fills the arrays and sends them to the device, in the order of `stream`. Rows that draw a token
  // come first among the logit rows, in plan order; the other scored rows follow. With `bucket`
  // above the plan's rows, every size is padded to it: rows of no sequence (model/forward.h), so
  // that all decode steps of a bucket have one shape.
  Result<const Batch*> build(std::span<const Chunk> plan, Stream* stream, int64_t bucket = 0);
  // Of the last build: the sequences that draw, the scored rows, the owner of every batch row.
  std::span<Sequence* const> drawing() const { return drawing_; }
  std::span<const ScoredRow> scored() const { return scored_; }
  std::span<const RowOwner> owners() const { return owners_; }

 private:
  void add_tokens(const Chunk& chunk, int64_t row);
  void add_tables(const Chunk& chunk, int64_t sequence, int64_t row);
  int64_t want_logits(std::span<const Chunk> plan);
  void pad(int64_t row, int64_t sequences, int64_t logit_rows, int64_t bucket);
  // The device's copy of an array that was filled on the host.
  template <class T>
  std::span<const T> on_device(const T* array, int64_t count) const {
    return {device_base_ + (array - host_base_), static_cast<size_t>(count)};
  }

  BatchCapacity capacity_;
  Device* device_ = nullptr;
  Buffer buffer_;                       // all arrays, one after the other, on the device
  std::shared_ptr<std::byte> staging_;  // the same on the host, where the device is not the CPU
  int32_t *device_base_ = nullptr, *host_base_ = nullptr;
  size_t bytes_ = 0;
  int32_t *ids_ = nullptr, *positions_ = nullptr, *starts_ = nullptr, *logit_rows_ = nullptr;
  std::vector<int32_t*> slots_, tables_;  // per KV group
  Batch batch_;
  std::vector<Sequence*> drawing_;
  std::vector<ScoredRow> scored_;
  std::vector<RowOwner> owners_;
};

}  // namespace sluice
