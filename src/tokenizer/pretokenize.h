// Pre-tokenisation: how text is cut into the words inside which BPE merges.
//
// Published tokenizers do it with a handful of regular expressions. Each is recognised by its exact
// text and has a hand-written scanner; an unknown expression is refused at load, because a near
// miss would give wrong ids without any error.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace sluice {

enum class SplitPattern {
  kGpt2,    // contractions, ` ?\p{L}+`, ` ?\p{N}+`
  kQwen2,   // letters with one leading symbol, single digits (Qwen2, Qwen3)
  kQwen35,  // as kQwen2, with marks counted among the letters
  kLlama3,  // as kQwen2, digits in threes (cl100k)
  kO200k,   // case-aware words, digits in threes (gpt-oss)
};
Result<SplitPattern> split_pattern_of(std::string_view regex);

// The end of the word that starts at `at` (at < text.size(), valid UTF-8); always > at.
size_t next_word_end(SplitPattern pattern, std::string_view text, size_t at);

// One step of a pre-tokeniser chain.
struct PreTokenizerStep {
  enum Kind {
    kPattern,          // every match is a word of its own
    kLiteralIsolated,  // `literal` is a word of its own
    kLiteralWithPrev,  // `literal` ends a word
    kLiteralWithNext,  // `literal` starts a word
    kLiteralRemoved,   // `literal` separates words and vanishes
    kDigits,           // each run of \p{N} is a word
    kEachDigit,        // each \p{N} is a word
    kPrefixSpace,      // words that do not start with a space get one
  } kind;
  SplitPattern pattern = SplitPattern::kGpt2;
  std::string literal;
};

// Cuts `words` further by one step. Views point into the text or, for kPrefixSpace, into `storage`.
void apply_step(const PreTokenizerStep& step, std::vector<std::string_view>& words,
                std::deque<std::string>& storage);

}  // namespace sluice
