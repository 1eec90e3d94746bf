// What a tokenizer.json becomes: private to this room.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include "tokenizer/pretokenize.h"

namespace sluice {

// How one id is written out.
enum class PieceKind : uint8_t {
  kNone,  // no such id
  kText,  // its bytes as they are
  kByte,  // a byte-fallback token <0xNN>: one byte, valid only in a well-formed run
};

// Where a long text may be cut without changing its ids: between two characters that no merge
// joins. Characters are ASCII, U+2581 (the space of SentencePiece), or "other".
class SeamTable {
 public:
  static constexpr size_t kClasses = 130;
  static size_t class_of(uint32_t c) { return c < 128 ? c : c == 0x2581 ? 128 : 129; }
  void join(uint32_t left, uint32_t right) {
    joined_.set(class_of(left) * kClasses + class_of(right));
  }
  bool may_cut(uint32_t left, uint32_t right) const {
    return enabled && !joined_.test(class_of(left) * kClasses + class_of(right));
  }
  bool enabled = false;

 private:
  std::bitset<kClasses * kClasses> joined_;
};

struct TokenizerData {
  explicit TokenizerData(BpeModel m) : model(std::move(m)) {}

  BpeModel model;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::vector<AddedToken> added;
  AddedTokenMatcher raw_matcher;         // added tokens looked for in the raw text
  AddedTokenMatcher normalized_matcher;  // ... in the normalised text
  std::vector<int32_t> prefix;           // what add_special puts in front
  std::vector<int32_t> suffix;           // ... and behind
  SeamTable seams;

  // By id: how it decodes. The bytes lie in piece_bytes.
  struct Piece {
    uint32_t offset = 0;
    uint32_t length = 0;
    PieceKind kind = PieceKind::kNone;
    bool special = false;
    bool control = false;  // an added token that content must not become
  };
  bool is_control(int32_t id) const { return pieces[static_cast<size_t>(id)].control; }
  std::vector<Piece> pieces;
  std::string piece_bytes;
  std::unordered_map<std::string, int32_t> spelled;  // texts that `model.table` does not hold
  size_t strip_left = 0;  // decoder Strip: so many `strip_text` in front of the whole
  std::string strip_text;

  // The id of a token as the file spells it, or kNoToken.
  int32_t find_spelled(std::string_view text) const;

  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
};

// GPT-2's spelling of bytes as printable characters, undone: "Ġworld" -> " world". False if a
// character of `text` is not such a byte; `bytes` is then unspecified.
bool bytes_of_spelling(std::string_view text, std::string& bytes);

// The byte of a byte-fallback token <0xNN>, or -1.
int byte_of_fallback(std::string_view text);

}  // namespace sluice
