// The token table: id <-> bytes, packed in one arena, and which pairs of tokens merge.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace sluice {

constexpr int32_t kNoToken = -1;

// Texts by id, and ids by text. Ids may have holes. At most 4 GiB of text.
class TokenTable {
 public:
  // Reserves room for ids below `id_limit`; add() refuses others.
  TokenTable(size_t id_limit, size_t text_bytes);

  // False if the id or the text is taken already.
  bool add(int32_t id, std::string_view text);
  // The id of a text, or kNoToken.
  int32_t find(std::string_view text) const;
  bool has(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < spans_.size() && spans_[id].length != kHole;
  }
  // The text of an id; empty for a hole or an id out of range.
  std::string_view text(int32_t id) const {
    return has(id) ? std::string_view(arena_).substr(spans_[id].offset, spans_[id].length)
                   : std::string_view();
  }
  size_t id_limit() const { return spans_.size(); }
  size_t count() const { return count_; }

 private:
  static constexpr uint32_t kHole = ~0u;
  struct Span {
    uint32_t offset = 0;
    uint32_t length = kHole;
  };
  struct Slot {
    uint32_t hash = 0;
    int32_t id = kNoToken;
  };

  std::string arena_;
  std::vector<Span> spans_;
  std::vector<Slot> slots_;  // open addressing; a power of two, at most half full
  size_t count_ = 0;
};

// What the pair (left, right) merges into, and how early.
struct Merge {
  uint32_t rank = ~0u;  // lower merges first
  int32_t token = kNoToken;
};

class MergeTable {
 public:
  explicit MergeTable(size_t expected);
  // A pair given twice keeps the later rank, as the `tokenizers` crate does.
  void set(int32_t left, int32_t right, Merge merge);
  // token == kNoToken if the pair does not merge.
  Merge find(int32_t left, int32_t right) const {
    const uint64_t k = key(left, right);
    for (size_t i = mix(k) & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].key == k) return slots_[i].merge;
      if (slots_[i].key == kEmpty) return {};
    }
  }
  bool empty() const { return count_ == 0; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static size_t mix(uint64_t k) {
    k *= 0x9E3779B97F4A7C15u;
    return static_cast<size_t>(k ^ k >> 29);
  }
  size_t place_of(uint64_t k) const;  // where `k` is, or where it would go

  std::vector<Slot> slots_;  // open addressing; a power of two, at most half full
  size_t mask_;
  size_t count_ = 0;
};

}  // namespace sluice
