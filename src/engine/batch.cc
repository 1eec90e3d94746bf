#include "engine/batch.h"

#include <algorithm>
#include <cstring>

namespace sluice {

Result<std::unique_ptr<BatchBuilder>> BatchBuilder::create(Device& device, const KvBlocks& kv,
                                                           const BatchCapacity& capacity) {
  auto builder = std::make_unique<BatchBuilder>();
  BatchBuilder& b = *builder;
  b.capacity_ = capacity;
  b.device_ = &device;
  // Each array with its place among all of them, in elements.
  std::vector<std::pair<int32_t**, int64_t>> places;
  int64_t total = 0;
  const auto place = [&](int32_t** array, int64_t count) {
    places.emplace_back(array, total);
    total += round_up(count, 64);
  };
  place(&b.ids_, capacity.tokens);
  place(&b.positions_, capacity.tokens);
  place(&b.starts_, capacity.sequences + 1);
  place(&b.logit_rows_, capacity.logit_rows);
  b.slots_.resize(kv.groups());
  b.tables_.resize(kv.groups());
  for (size_t g = 0; g < kv.groups(); ++g) {
    place(&b.slots_[g], capacity.tokens);
    place(&b.tables_[g], capacity.sequences * capacity.blocks);
    b.batch_.groups.push_back({.caches = kv.caches(g)});
  }
  b.bytes_ = static_cast<size_t>(total) * sizeof(int32_t);
  SLUICE_ASSIGN_OR_RETURN(b.buffer_, device.allocate(b.bytes_, "batch arrays"));
  b.device_base_ = b.host_base_ = b.buffer_.as<int32_t>();
  if (device.kind() != DeviceKind::kCpu) {
    SLUICE_ASSIGN_OR_RETURN(b.staging_, device.allocate_staging(b.bytes_, "batch arrays"));
    std::memset(b.staging_.get(), 0, b.bytes_);
    b.host_base_ = reinterpret_cast<int32_t*>(b.staging_.get());
  }
  for (const auto& [array, at] : places) *array = b.host_base_ + at;
  return builder;
}

Result<const Batch*> BatchBuilder::build(std::span<const Chunk> plan, Stream* stream,
                                         int64_t bucket) {
  owners_.clear();
  int64_t row = 0;
  for (size_t s = 0; s < plan.size(); ++s) {
    starts_[s] = static_cast<int32_t>(row);
    add_tokens(plan[s], row);
    add_tables(plan[s], static_cast<int64_t>(s), row);
    row += plan[s].count;
  }
  starts_[plan.size()] = static_cast<int32_t>(row);
  const int64_t logit_rows = want_logits(plan), sequences = static_cast<int64_t>(plan.size());
  pad(row, sequences, logit_rows, bucket);
  const int64_t tokens = std::max(row, bucket), rows = std::max(sequences, bucket);
  batch_.ids = on_device(ids_, tokens);
  batch_.positions = on_device(positions_, tokens);
  batch_.query_starts = on_device(starts_, rows + 1);
  batch_.logit_rows = on_device(logit_rows_, std::max(logit_rows, bucket));
  for (size_t g = 0; g < slots_.size(); ++g) {
    batch_.groups[g].slots = on_device(slots_[g], tokens);
    batch_.groups[g].block_tables = {on_device(tables_[g], 0).data(), rows, capacity_.blocks};
  }
  if (staging_ != nullptr)
    SLUICE_RETURN_IF_ERROR(device_->upload(buffer_.data(), host_base_, bytes_, stream));
  return &batch_;
}

void BatchBuilder::pad(int64_t row, int64_t sequences, int64_t logit_rows, int64_t bucket) {
  for (int64_t t = row; t < bucket; ++t) {
    ids_[t] = positions_[t] = 0;
    for (int32_t* slots : slots_) slots[t] = -1;
  }
  for (int64_t s = sequences; s < bucket; ++s) starts_[s + 1] = static_cast<int32_t>(row);
  for (int64_t i = logit_rows; i < bucket; ++i) logit_rows_[i] = 0;
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

int64_t BatchBuilder::want_logits(std::span<const Chunk> plan) {
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
  return count;
}

}  // namespace sluice
