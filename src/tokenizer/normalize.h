// Normalisation: what happens to text before it is cut into words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/unicode.h"

namespace sluice {

struct NormalizerStep {
  enum Kind { kUnicode, kReplace, kPrepend, kLowerCase, kStrip } kind;
  NormalForm form = NormalForm::kNfc;  // kUnicode
  std::string pattern;                 // kReplace: a literal
  std::string content;                 // kReplace, kPrepend
  bool left = false;                   // kStrip
  bool right = false;
};

// `text` must be valid UTF-8.
std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text);

// Replaces every occurrence of the non-empty literal `pattern`, from the left.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace sluice
