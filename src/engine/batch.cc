#include "engine/batch.h"

#include <algorithm>

namespace sluice {

Result<std::unique_ptr<BatchBuilder>> BatchBuilder::create(Device& device, const KvBlocks& kv,
                                                           const BatchCapacity& capacity) {
  auto builder = std::make_unique<BatchBuilder>();
  builder->capacity_ = capacity;
  Status status;
  const auto allocate = [&](int64_t count) -> int32_t* {
    Result<Buffer> buffer =
        device.allocate(static_cast<size_t>(count) * sizeof(int32_t), "batch arrays");
    if (!buffer.ok()) {
      status = buffer.status();
      return nullptr;
    }
    builder->buffers_.push_back(std::move(buffer).value());
    return builder->buffers_.back().as<int32_t>();
  };
  builder->ids_ = allocate(capacity.tokens);
  builder->positions_ = allocate(capacity.tokens);
  builder->starts_ = allocate(capacity.sequences + 1);
  builder->logit_rows_ = allocate(capacity.logit_rows);
  for (size_t g = 0; g < kv.groups(); ++g) {
    builder->slots_.push_back(allocate(capacity.tokens));
    builder->tables_.push_back(allocate(capacity.sequences * capacity.blocks));
    builder->batch_.groups.push_back({.caches = kv.caches(g)});
  }
  SLUICE_RETURN_IF_ERROR(status);
  return builder;
}

const Batch& BatchBuilder::build(std::span<const Chunk> plan) {
  owners_.clear();
  int64_t row = 0;
  for (size_t s = 0; s < plan.size(); ++s) {
    starts_[s] = static_cast<int32_t>(row);
    add_tokens(plan[s], row);
    add_tables(plan[s], static_cast<int64_t>(s), row);
    row += plan[s].count;
  }
  starts_[plan.size()] = static_cast<int32_t>(row);
  const auto tokens = static_cast<size_t>(row);
  batch_.ids = {ids_, tokens};
  batch_.positions = {positions_, tokens};
  batch_.query_starts = {starts_, plan.size() + 1};
  for (size_t g = 0; g < slots_.size(); ++g) {
    batch_.groups[g].slots = {slots_[g], tokens};
    batch_.groups[g].block_tables = {tables_[g], static_cast<int64_t>(plan.size()),
                                     capacity_.blocks};
  }
  want_logits(plan);
  return batch_;
}

void BatchBuilder::add_tokens(const Chunk& c, int64_t row) {
  for (int64_t i = 0; i < c.count; ++i) {
    const int64_t position = c.start + i;
    ids_[row + i] = c.sequence->tokens[static_cast<size_t>(position)];
    positions_[row + i] = static_cast<int32_t>(position);
    owners_.push_back({c.sequence->id, position});
  }
}

void BatchBuilder::add_tables(const Chunk& c, int64_t sequence, int64_t row) {
  for (size_t g = 0; g < slots_.size(); ++g) {
    const std::vector<int32_t>& blocks = c.sequence->kv.groups[g].blocks;
    // Blocks that were given back are never read, but a table holds valid block numbers only.
    int32_t* table = tables_[g] + sequence * capacity_.blocks;
    for (size_t b = 0; b < blocks.size(); ++b) table[b] = std::max(blocks[b], 0);
    for (int64_t i = 0; i < c.count; ++i) {
      const int64_t position = c.start + i;
      slots_[g][row + i] = static_cast<int32_t>(
          blocks[static_cast<size_t>(position / kKvBlock)] * kKvBlock + position % kKvBlock);
    }
  }
}

void BatchBuilder::want_logits(std::span<const Chunk> plan) {
  drawing_.clear();
  scored_.clear();
  int64_t count = 0;
  const auto want = [&](int64_t row) { logit_rows_[count++] = static_cast<int32_t>(row); };
  for (size_t s = 0; s < plan.size(); ++s) {
    const Chunk& c = plan[s];
    if (!c.draws()) continue;
    if (c.score_from() < c.score_to() && c.score_to() == c.end())
      scored_.push_back({c.sequence->id, c.end() - 1, count});
    want(starts_[s + 1] - 1);
    drawing_.push_back(c.sequence);
  }
  for (size_t s = 0; s < plan.size(); ++s) {
    const Chunk& c = plan[s];
    const int64_t end = c.draws() ? std::min(c.score_to(), c.end() - 1) : c.score_to();
    for (int64_t p = c.score_from(); p < end; ++p) {
      scored_.push_back({c.sequence->id, p, count});
      want(starts_[s] + p - c.start);
    }
  }
  batch_.logit_rows = {logit_rows_, static_cast<size_t>(count)};
}

}  // namespace sluice
