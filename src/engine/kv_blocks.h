// KV blocks: who owns which 16 tokens of the paged cache.
//
// Each KV group of the model (kv heads, head size, window, K = V) has a pool of blocks of its own
// and every sequence a table per group. Blocks are counted, so that several sequences may share a
// prefix. A sliding group gives back the blocks that have fallen behind its window.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "device/device.h"
#include "model/spec.h"
#include "ops/kv_write/kv_cache.h"
#include "tensor/arith.h"

namespace sluice {

// Tokens that a sliding group keeps behind its window, so that a sequence can be cut back by a few
// tokens (rejected speculation) without computing its window again.
inline constexpr int64_t kKvSlack = kKvBlock;

// Free list and reference counts of `blocks` numbered blocks.
class BlockPool {
 public:
  explicit BlockPool(int64_t blocks);
  int64_t size() const { return static_cast<int64_t>(uses_.size()); }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  // A block with one use, or nothing when all are taken.
  std::optional<int32_t> take();
  void share(int32_t block) { ++uses_[static_cast<size_t>(block)]; }
  void release(int32_t block);
  int32_t uses(int32_t block) const { return uses_[static_cast<size_t>(block)]; }

 private:
  std::vector<int32_t> uses_;
  std::vector<int32_t> free_;
};

// The blocks of one sequence.
struct SequenceBlocks {
  struct Table {
    std::vector<int32_t> blocks;  // block of positions [16 i, 16 i + 16); -1 before `first`
    int64_t first = 0;            // entries below have been given back
    int64_t held() const { return static_cast<int64_t>(blocks.size()) - first; }
  };
  std::vector<Table> groups;
};

struct KvSizing {
  int64_t tokens = 0;         // positions that the full-attention groups hold, over all sequences
  int64_t max_sequences = 1;  // sliding groups hold a window and a chunk for each
  int64_t chunk = 1;          // most new tokens of a sequence in one step
};
// Blocks of a group for `tokens` tokens of one sequence, at its worst moment.
int64_t kv_blocks_needed(const KvGroupSpec& group, int64_t tokens, int64_t chunk);
// Blocks of the pool of a group, and bytes of all pools.
int64_t kv_pool_blocks(const KvGroupSpec& group, const KvSizing& sizing);
size_t kv_pool_bytes(const ModelSpec& spec, Compute compute, const KvSizing& sizing);

class KvBlocks {
 public:
  static Result<std::unique_ptr<KvBlocks>> create(Device& device, const ModelSpec& spec,
                                                  Compute compute, const KvSizing& sizing);

  size_t groups() const { return groups_.size(); }
  const BlockPool& pool(size_t group) const { return groups_[group].pool; }
  const std::vector<KvCacheView>& caches(size_t group) const { return groups_[group].caches; }
  size_t bytes() const;
  int64_t needed(size_t group, int64_t tokens) const;
  // The longest sequence that fits when it is alone.
  int64_t max_tokens() const { return max_tokens_; }

  // Gives the sequence blocks for positions [0, tokens), leaving `keep_free[group]` blocks (empty:
  // none) to others. All groups or none; false when some pool has too few.
  bool reserve(SequenceBlocks& sequence, int64_t tokens, std::span<const int64_t> keep_free = {});
  // Gives back what the query at position `next` and later ones can no longer see.
  void trim(SequenceBlocks& sequence, int64_t next);
  // Cuts the sequence back to its first `tokens` positions. Returns how many are really kept: 0
  // where a window's blocks have already been given back.
  int64_t truncate(SequenceBlocks& sequence, int64_t tokens);
  void release(SequenceBlocks& sequence) { truncate(sequence, 0); }

 private:
  struct Group {
    KvGroupSpec spec;
    BlockPool pool;
    Buffer memory;
    std::vector<KvCacheView> caches;  // one per layer
  };
  KvSizing sizing_;
  int64_t max_tokens_ = 0;
  std::vector<Group> groups_;
};

}  // namespace sluice
