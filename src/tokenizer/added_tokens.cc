#include "tokenizer/added_tokens.h"

#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"

namespace sluice {
namespace {

// Where the code point that ends before `at` starts.
size_t previous_start(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80);
  return at;
}

uint8_t class_before(std::string_view text, size_t at) {
  return at == 0 ? 0 : char_class(code_point_at(text, previous_start(text, at)).value);
}

uint8_t class_after(std::string_view text, size_t at) {
  return at >= text.size() ? 0 : char_class(code_point_at(text, at).value);
}

}  // namespace

void AddedTokenMatcher::add(std::string_view text, const AddedToken& token) {
  if (text.empty()) return;
  int32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t child = 0;
    for (const auto& [label, target] : nodes_[node].children)
      if (label == byte) child = target;
    if (child == 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_[node].children.emplace_back(byte, child);
      nodes_.emplace_back();
      if (node == 0) roots_[byte] = child;
    }
    node = child;
  }
  if (nodes_[node].token >= 0) return;  // the same text twice: the first one counts
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

AddedTokenMatcher::Match AddedTokenMatcher::match_at(std::string_view text, size_t at,
                                                     AddedTokens which) const {
  Match best;
  int32_t node = roots_[static_cast<uint8_t>(text[at])];
  for (size_t i = at + 1; node != 0; ++i) {
    if (const int32_t t = nodes_[node].token; t >= 0) {
      if (which == AddedTokens::kAll || !tokens_[t].control) best = {&tokens_[t], i - at};
    }
    if (i >= text.size()) break;
    int32_t child = 0;
    for (const auto& [label, target] : nodes_[node].children)
      if (label == static_cast<uint8_t>(text[i])) child = target;
    node = child;
  }
  return best;
}

void AddedTokenMatcher::split(std::string_view text, AddedTokens which,
                              std::vector<Piece>& out) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const Match match = match_at(text, at, which);
    if (match.token == nullptr) {
      ++at;
      continue;
    }
    size_t start = at;
    size_t stop = at + match.length;
    at = stop;  // also when the token is refused below, as the `tokenizers` crate does
    if (match.token->single_word &&
        ((class_before(text, start) | class_after(text, stop)) & kWordLike) != 0)
      continue;
    if (match.token->lstrip)
      while (start > done && (class_before(text, start) & kSpace) != 0)
        start = previous_start(text, start);
    if (match.token->rstrip)
      while ((class_after(text, stop) & kSpace) != 0) stop += code_point_at(text, stop).bytes;
    if (start > done) out.push_back({kNoToken, text.substr(done, start - done)});
    out.push_back({match.token->id, text.substr(start, stop - start)});
    done = stop;
    if (at < done) at = done;
  }
  if (done < text.size()) out.push_back({kNoToken, text.substr(done)});
}

}  // namespace sluice
