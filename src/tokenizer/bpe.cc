#include "tokenizer/bpe.h"

#include <algorithm>

#include "tokenizer/unicode.h"

namespace sluice {
namespace {

// Below this many symbols a scan for the best pair beats a heap.
constexpr size_t kScanLimit = 48;

bool has_byte_tokens(const BpeModel& m, std::string_view character) {
  if (!m.byte_fallback || m.byte_level) return false;
  return std::all_of(character.begin(), character.end(),
                     [&](char c) { return m.byte_token[static_cast<uint8_t>(c)] != kNoToken; });
}

// The characters (or bytes) of a word as tokens, before any merge.
void initial_tokens(const BpeModel& m, std::string_view word, std::vector<int32_t>& out) {
  // Unknown characters wait until a known one comes: neighbours may fuse, and byte tokens pass
  // ahead of them. Odd, but it is what the `tokenizers` crate does.
  bool waiting = false;
  for (size_t at = 0; at < word.size();) {
    const size_t n = m.byte_level ? 1 : code_point_at(word, at).bytes;
    const std::string_view piece = word.substr(at, n);
    at += n;
    const int32_t id =
        m.byte_level ? m.byte_token[static_cast<uint8_t>(piece[0])] : m.table.find(piece);
    if (id != kNoToken) {
      if (waiting) out.push_back(m.unknown);
      waiting = false;
      out.push_back(id);
    } else if (has_byte_tokens(m, piece)) {
      for (const char c : piece) out.push_back(m.byte_token[static_cast<uint8_t>(c)]);
    } else if (m.unknown != kNoToken) {
      if (waiting && !m.fuse_unknown) out.push_back(m.unknown);
      waiting = true;
    }
  }
  if (waiting) out.push_back(m.unknown);
}

// Merges ids[first..] in place by looking for the best pair each time.
void merge_by_scan(const BpeModel& m, size_t first, std::vector<int32_t>& ids,
                   std::vector<Merge>& pairs) {
  int32_t* const id = ids.data() + first;
  size_t n = ids.size() - first;
  pairs.resize(n);
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = m.merges.find(id[i], id[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (pairs[i].rank < pairs[best].rank) best = i;
    if (pairs[best].token == kNoToken) break;
    id[best] = pairs[best].token;
    std::copy(id + best + 2, id + n, id + best + 1);
    std::copy(pairs.begin() + static_cast<long>(best) + 1, pairs.begin() + static_cast<long>(n) - 1,
              pairs.begin() + static_cast<long>(best));
    --n;
    if (best > 0) pairs[best - 1] = m.merges.find(id[best - 1], id[best]);
    if (best + 1 < n) pairs[best] = m.merges.find(id[best], id[best + 1]);
  }
  ids.resize(first + n);
}

struct Later {
  bool operator()(const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  }
};

// The same with a heap of candidate pairs over a linked list, for long words.
void merge_by_heap(const BpeModel& m, size_t first, std::vector<int32_t>& ids, BpeScratch& s) {
  const size_t n = ids.size() - first;
  s.symbols.resize(n);
  for (size_t i = 0; i < n; ++i)
    s.symbols[i] = {ids[first + i], static_cast<int32_t>(i) - 1,
                    i + 1 < n ? static_cast<int32_t>(i) + 1 : -1};
  s.heap.clear();
  const auto candidate = [&](int32_t at) -> BpeScratch::Candidate {
    const auto& left = s.symbols[at];
    if (left.next < 0) return {0, at, kNoToken};
    const Merge found = m.merges.find(left.id, s.symbols[left.next].id);
    return {found.rank, at, found.token};
  };
  for (size_t i = 0; i + 1 < n; ++i)
    if (const auto c = candidate(static_cast<int32_t>(i)); c.token != kNoToken) s.heap.push_back(c);
  std::make_heap(s.heap.begin(), s.heap.end(), Later{});
  const auto push = [&](int32_t at) {
    const auto c = candidate(at);
    if (c.token == kNoToken) return;
    s.heap.push_back(c);
    std::push_heap(s.heap.begin(), s.heap.end(), Later{});
  };
  while (!s.heap.empty()) {
    std::pop_heap(s.heap.begin(), s.heap.end(), Later{});
    const auto top = s.heap.back();
    s.heap.pop_back();
    auto& left = s.symbols[top.at];
    if (left.next < 0) continue;  // merged away, or the last one now
    if (m.merges.find(left.id, s.symbols[left.next].id).token != top.token) continue;  // stale
    auto& right = s.symbols[left.next];
    left.id = top.token;
    left.next = right.next;
    right.next = -2;
    if (left.next >= 0) s.symbols[left.next].prev = top.at;
    if (left.prev >= 0) push(left.prev);
    push(top.at);
  }
  size_t out = first;
  for (int32_t i = 0; i >= 0; i = s.symbols[i].next) ids[out++] = s.symbols[i].id;
  ids.resize(out);
}

}  // namespace

void encode_word(const BpeModel& model, std::string_view word, BpeScratch& scratch,
                 std::vector<int32_t>& ids) {
  if (model.ignore_merges) {
    if (const int32_t id = model.table.find(word); id != kNoToken) {
      ids.push_back(id);
      return;
    }
  }
  const size_t first = ids.size();
  initial_tokens(model, word, ids);
  if (ids.size() - first < 2 || model.merges.empty()) return;
  if (ids.size() - first <= kScanLimit) {
    merge_by_scan(model, first, ids, scratch.pairs);
  } else {
    merge_by_heap(model, first, ids, scratch);
  }
}

}  // namespace sluice
