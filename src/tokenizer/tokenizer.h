// Tokenizer: text <-> token ids, exactly as a Hugging Face `tokenizer.json` says.
//
// Supported: BPE, byte-level (GPT-2, Qwen, gpt-oss) and SentencePiece-style with byte fallback
// (Gemma). Anything in the file that is not understood is refused at load with a sentence, never
// ignored: a near miss would give wrong ids without any error.
//
// A Tokenizer is immutable after load() and may be used from many threads at once. Text is UTF-8;
// ill-formed parts of an input are read as U+FFFD, as Python's errors="replace" does.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/added_tokens.h"

namespace sluice {

struct TokenizerData;

// A part of a prompt, and which added tokens are recognised in it.
struct TextRun {
  std::string_view text;
  AddedTokens which;
};

class Tokenizer {
 public:
  // `path`: a tokenizer.json, or a directory that holds one. A tokenizer_config.json beside it
  // gives the bos and eos tokens. Errors: kNotFound, kDataLoss (contradictions in the file),
  // kUnimplemented (a part that Sluice does not know).
  static Result<Tokenizer> load(const std::string& path);
  // From the files' contents; `config` may be empty. `where` names the file in messages.
  static Result<Tokenizer> parse(std::string_view json, std::string_view config,
                                 std::string_view where);

  // The ids of `text`. `add_special` adds what the file's post-processor adds (a bos, say).
  // `which` says whether control tokens such as <|im_end|> are recognised in the text; text that
  // people or tools wrote must be encoded with kVocabulary, where they stay text.
  std::vector<int32_t> encode(std::string_view text, bool add_special,
                              AddedTokens which = AddedTokens::kAll) const;

  // The ids of several runs as one text: added tokens are found in each run by itself, the text
  // between them is encoded in one piece, also across runs. Text found in no kAll run never
  // becomes a control token. Nothing is added.
  std::vector<int32_t> encode_runs(std::span<const TextRun> runs) const;

  // The text of `ids`: valid UTF-8, ill-formed bytes as U+FFFD. Ids out of range decode to
  // nothing; `skip_special` leaves special tokens out.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

  // The bytes that one id stands for, without context: possibly a part of a code point; empty for
  // an unknown id. (Words of SentencePiece-style models begin with their space.)
  std::string token_bytes(int32_t id) const;
  // The id of a token as the file spells it ("<|im_end|>", "Ġworld"), or nothing.
  std::optional<int32_t> id_of(std::string_view token) const;
  bool is_special(int32_t id) const;

  // One more than the largest id; ids below may be unused. A model's embedding may have more rows.
  int32_t vocab_size() const;
  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;

 private:
  friend class Detokenizer;
  explicit Tokenizer(std::shared_ptr<const TokenizerData> data) : data_(std::move(data)) {}
  std::shared_ptr<const TokenizerData> data_;
};

}  // namespace sluice
