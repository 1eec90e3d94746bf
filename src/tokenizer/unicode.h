// UTF-8 and the character classes that pre-tokenisers ask for.
//
// Published tokenizers were trained with one set of Unicode tables and run with another (the Rust
// `tokenizers` crate: Oniguruma for regexes, an older table for NFC). unicode.cc names every place
// where libutf8proc's tables differ from those; tests/oracle/test_tokenizer.py compares all code
// points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice {

// Classes of a code point, as bits: several may hold at once.
enum CharClass : uint8_t {
  kLetter = 1,      // \p{L}
  kNumber = 2,      // \p{N}
  kMark = 4,        // \p{M}
  kSpace = 8,       // \s (Unicode White_Space)
  kLineBreak = 16,  // \r or \n
  kUpperLike = 32,  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
  kLowerLike = 64,  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
  kWordLike = 128,  // \w, for added tokens marked single_word
};
uint8_t char_class(uint32_t code_point);

struct CodePoint {
  uint32_t value = 0;
  uint32_t bytes = 0;  // 0 only at the end of the text
};

// Decodes the code point at `at`; the text must be valid UTF-8 (see make_valid_utf8).
inline CodePoint code_point_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<uint8_t>(text[at + i]));
  };
  const uint32_t b = byte(0);
  if (b < 0x80) return {b, 1};
  if (b < 0xE0) return {(b & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (b < 0xF0) return {(b & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(b & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

void append_utf8(uint32_t code_point, std::string& out);

// What stands at the front of a byte stream.
struct Utf8Step {
  enum Kind { kComplete, kInvalid, kIncomplete } kind;
  uint32_t bytes;  // complete: of the code point; invalid: of the maximal ill-formed part
};
// kIncomplete means that more bytes could complete a code point. `bytes` must not be empty.
Utf8Step utf8_step(std::string_view bytes);

bool is_valid_utf8(std::string_view bytes);

// Replaces each maximal ill-formed part by U+FFFD (the WHATWG rule, which Rust's from_utf8_lossy
// and Python's errors="replace" follow too).
std::string make_valid_utf8(std::string_view bytes);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// `text` must be valid UTF-8.
std::string normalize_unicode(std::string_view text, NormalForm form);

// Lower case, character by character, without context or language.
std::string lower_case(std::string_view text);

}  // namespace sluice
