#include "engine/kv_blocks.h"

#include <algorithm>
#include <limits>

namespace sluice {
namespace {

int64_t element_bytes(Compute compute) {
  return compute == Compute::kF32 ? 4 : 2;
}

// First position that the query at `next`, or one a few tokens before it, can see.
int64_t first_visible(int64_t window, int64_t next) {
  return window == 0 ? 0 : std::max<int64_t>(0, next - window + 1 - kKvSlack);
}

size_t layer_bytes(const KvGroupSpec& group, Compute compute, int64_t blocks) {
  const KvCacheView one{.kv_heads = group.kv_heads, .head_size = group.head_size};
  return static_cast<size_t>(one.block_elements() * element_bytes(compute) * blocks);
}

}  // namespace

BlockPool::BlockPool(int64_t blocks) : uses_(static_cast<size_t>(blocks)) {
  free_.reserve(uses_.size());
  for (int64_t b = blocks - 1; b >= 0; --b) free_.push_back(static_cast<int32_t>(b));
}

std::optional<int32_t> BlockPool::take() {
  if (free_.empty()) return std::nullopt;
  const int32_t block = free_.back();
  free_.pop_back();
  uses_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockPool::release(int32_t block) {
  if (--uses_[static_cast<size_t>(block)] == 0) free_.push_back(block);
}

int64_t kv_blocks_needed(const KvGroupSpec& group, int64_t tokens, int64_t chunk) {
  const int64_t all = ceil_div(tokens, kKvBlock);
  if (group.window == 0) return all;
  // Window, slack and chunk may begin and end in the middle of a block.
  const int64_t span = group.window - 1 + kKvSlack + chunk;
  return std::min(all, ceil_div(span + kKvBlock - 1, kKvBlock));
}

int64_t kv_pool_blocks(const KvGroupSpec& group, const KvSizing& sizing) {
  const int64_t all = ceil_div(sizing.tokens, kKvBlock);
  const int64_t each = kv_blocks_needed(group, sizing.tokens, sizing.chunk);
  return std::min(all, each * sizing.max_sequences);
}

size_t kv_pool_bytes(const ModelSpec& spec, Compute compute, const KvSizing& sizing) {
  size_t total = 0;
  for (const KvGroupSpec& g : spec.kv_groups)
    total += layer_bytes(g, compute, kv_pool_blocks(g, sizing)) * g.layers.size();
  return total;
}

Result<std::unique_ptr<KvBlocks>> KvBlocks::create(Device& device, const ModelSpec& spec,
                                                   Compute compute, const KvSizing& sizing) {
  if (sizing.tokens < 1 || sizing.max_sequences < 1 || sizing.chunk < 1)
    return invalid_argument("kv cache: {} tokens, {} sequences, chunk {}: each must be positive",
                            sizing.tokens, sizing.max_sequences, sizing.chunk);
  // Slots are 32-bit numbers.
  if (sizing.tokens > std::numeric_limits<int32_t>::max() - kKvBlock)
    return invalid_argument("kv cache: {} tokens, at most {} can be numbered", sizing.tokens,
                            std::numeric_limits<int32_t>::max() - kKvBlock);
  auto kv = std::make_unique<KvBlocks>();
  kv->sizing_ = sizing;
  kv->max_tokens_ = round_up(sizing.tokens, kKvBlock);
  for (const KvGroupSpec& g : spec.kv_groups) {
    const int64_t blocks = kv_pool_blocks(g, sizing);
    const size_t each = layer_bytes(g, compute, blocks);
    SLUICE_ASSIGN_OR_RETURN(Buffer memory, device.allocate(each * g.layers.size(), "kv cache"));
    std::vector<KvCacheView> caches;
    for (size_t l = 0; l < g.layers.size(); ++l)
      caches.push_back({.dtype = compute == Compute::kF32 ? DType::kF32 : DType::kBF16,
                        .data = memory.data() + l * each,
                        .blocks = blocks,
                        .kv_heads = g.kv_heads,
                        .head_size = g.head_size});
    kv->groups_.push_back({g, BlockPool(blocks), std::move(memory), std::move(caches)});
  }
  return kv;
}

size_t KvBlocks::bytes() const {
  size_t total = 0;
  for (const Group& g : groups_) total += g.memory.bytes();
  return total;
}

int64_t KvBlocks::needed(size_t group, int64_t tokens) const {
  return kv_blocks_needed(groups_[group].spec, tokens, sizing_.chunk);
}

bool KvBlocks::reserve(SequenceBlocks& sequence, int64_t tokens,
                       std::span<const int64_t> keep_free) {
  sequence.groups.resize(groups_.size());
  const int64_t blocks = ceil_div(tokens, kKvBlock);
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int64_t more = blocks - static_cast<int64_t>(sequence.groups[g].blocks.size());
    const int64_t kept = keep_free.empty() ? 0 : keep_free[g];
    if (more > 0 && groups_[g].pool.free() - kept < more) return false;
  }
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<int32_t>& table = sequence.groups[g].blocks;
    while (static_cast<int64_t>(table.size()) < blocks) table.push_back(*groups_[g].pool.take());
  }
  return true;
}

void KvBlocks::trim(SequenceBlocks& sequence, int64_t next) {
  for (size_t g = 0; g < sequence.groups.size(); ++g) {
    SequenceBlocks::Table& table = sequence.groups[g];
    const int64_t live = first_visible(groups_[g].spec.window, next) / kKvBlock;
    for (; table.first < std::min(live, static_cast<int64_t>(table.blocks.size())); ++table.first) {
      int32_t& block = table.blocks[static_cast<size_t>(table.first)];
      groups_[g].pool.release(block);
      block = -1;
    }
  }
}

int64_t KvBlocks::truncate(SequenceBlocks& sequence, int64_t tokens) {
  for (size_t g = 0; g < sequence.groups.size(); ++g) {
    const int64_t window = groups_[g].spec.window;
    const int64_t oldest = window == 0 ? 0 : std::max<int64_t>(0, tokens - window + 1);
    if (sequence.groups[g].first * kKvBlock > oldest) tokens = 0;
  }
  const int64_t blocks = ceil_div(tokens, kKvBlock);
  for (size_t g = 0; g < sequence.groups.size(); ++g) {
    SequenceBlocks::Table& table = sequence.groups[g];
    while (static_cast<int64_t>(table.blocks.size()) > blocks) {
      if (table.blocks.back() >= 0) groups_[g].pool.release(table.blocks.back());
      table.blocks.pop_back();
    }
    table.first = std::min(table.first, blocks);
  }
  return tokens;
}

}  // namespace sluice
