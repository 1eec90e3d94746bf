// Detokenizer: token ids to text, one id at a time, never half a code point.
//
// The pieces that push() returns, with finish() at the end, add up to exactly what
// Tokenizer::decode gives for all ids together, wherever they are cut. Each piece is valid UTF-8.
// Bytes that could still become a code point are held back; byte-fallback tokens (<0xE4>) are
// held until their run ends, because a run counts as text only if it is well-formed as a whole.
#pragma once

#include <cstdint>
#include <string>

#include "tokenizer/tokenizer.h"

namespace sluice {

class Detokenizer {
 public:
  // Keeps a share of the tokenizer's data; the Tokenizer itself may go away.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special);

  // The text that `id` completes; often empty. Ids out of range give nothing.
  std::string push(int32_t id);
  // The rest: incomplete bytes as U+FFFD. The detokenizer may be used afresh afterwards.
  std::string finish();

 private:
  void end_byte_run(std::string& out);
  void take_complete(bool last, std::string& out);

  std::shared_ptr<const TokenizerData> data_;
  bool skip_special_;
  std::string pending_;   // bytes that are not a whole code point yet
  std::string byte_run_;  // of byte-fallback tokens
  size_t strip_left_;     // leading characters still to be stripped
};

}  // namespace sluice
