// Byte-pair encoding of one word: the merges, in the order of the `tokenizers` crate.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace sluice {

// Everything that turns a word into ids. The words of byte-level models are raw bytes (the table
// holds raw bytes too), those of SentencePiece-style models are UTF-8 characters.
struct BpeModel {
  BpeModel(TokenTable t, MergeTable m) : table(std::move(t)), merges(std::move(m)) {}

  TokenTable table;
  MergeTable merges;
  bool byte_level = false;
  bool ignore_merges = false;  // a word that is a token is that token
  bool fuse_unknown = false;   // neighbouring unknown characters give one unknown token
  int32_t unknown = kNoToken;
  bool byte_fallback = false;  // unknown characters become the tokens of their bytes
  // Byte-level: the token of each byte; else the token <0xNN>. kNoToken where there is none.
  std::array<int32_t, 256> byte_token{};
};

// Reusable memory of encode_word; one per thread.
struct BpeScratch {
  struct Symbol {
    int32_t id;
    int32_t prev;
    int32_t next;  // -2 marks a symbol that was merged away
  };
  struct Candidate {
    uint32_t rank;
    int32_t at;
    int32_t token;
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<Merge> pairs;
};

// Appends the ids of `word` to `ids`. O(n log n) in the word's length.
void encode_word(const BpeModel& model, std::string_view word, BpeScratch& scratch,
                 std::vector<int32_t>& ids);

}  // namespace sluice
