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

  // Fills the arrays. Rows that draw a token come first among the logit rows, in plan order; the
  // other scored rows follow.
  const Batch& build(std::span<const Chunk> plan);
  // Of the last build: the sequences that draw, the scored rows, the owner of every batch row.
  std::span<Sequence* const> drawing() const { return drawing_; }
  std::span<const ScoredRow> scored() const { return scored_; }
  std::span<const RowOwner> owners() const { return owners_; }

 private:
  void add_tokens(const Chunk& chunk, int64_t row);
  void add_tables(const Chunk& chunk, int64_t sequence, int64_t row);
  void want_logits(std::span<const Chunk> plan);

  BatchCapacity capacity_;
  std::vector<Buffer> buffers_;
  int32_t *ids_ = nullptr, *positions_ = nullptr, *starts_ = nullptr, *logit_rows_ = nullptr;
  std::vector<int32_t*> slots_, tables_;  // per KV group
  Batch batch_;
  std::vector<Sequence*> drawing_;
  std::vector<ScoredRow> scored_;
  std::vector<RowOwner> owners_;
};

}  // namespace sluice
