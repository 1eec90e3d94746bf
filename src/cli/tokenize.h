// The body of `sluice tokenize`: lines of text to ids and back.
#pragma once

#include <ostream>
#include <string>

#include "base/status.h"

namespace sluice {

struct TokenizeOptions {
  std::string model;  // a model directory or a tokenizer.json
  std::string jsonl;  // one JSON object per line: {"text": ...}, or {"ids": [...]} to decode
  bool decode = false;
};

// Writes one line per input line: {"ids":[...]} or, decoding, {"text":...}, as ASCII JSON. Nothing
// is added to a text (no bos); control tokens inside it are recognised. Decoding keeps special
// tokens. Blank lines are passed over.
Status run_tokenize(const TokenizeOptions& options, std::ostream& out);

}  // namespace sluice
