#include "tokenizer/pretokenize.h"

#include <array>

#include "tokenizer/unicode.h"

namespace sluice {
namespace {

constexpr std::array<std::pair<std::string_view, SplitPattern>, 5> kKnownPatterns = {{
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitPattern::kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitPattern::kQwen2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+)"
     R"([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitPattern::kQwen35},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitPattern::kLlama3},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)"
     R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?)"
     R"([^\s\p{L}\p{N}]+[\r\n/]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitPattern::kO200k},
}};

// A cursor over valid UTF-8 with the class of the current character.
struct Cursor {
  Cursor(std::string_view text, size_t start) : s(text) { move_to(start); }
  void move_to(size_t to) {
    at = to;
    c = code_point_at(s, at);
    cls = c.bytes == 0 ? 0 : char_class(c.value);
  }
  void next() { move_to(at + c.bytes); }
  bool end() const { return c.bytes == 0; }
  bool is(uint8_t mask) const { return (cls & mask) != 0; }
  void skip_while(uint8_t mask) {
    while (!end() && is(mask)) next();
  }
  void skip_until(uint8_t mask) {
    while (!end() && !is(mask)) next();
  }

  std::string_view s;
  size_t at = 0;
  CodePoint c;
  uint8_t cls = 0;
};

// The end of 's 't 're 've 'm 'll 'd at `at`, or `at` itself. Without regard to case, U+017F (long
// s) is an s: Oniguruma folds it.
size_t contraction_end(std::string_view s, size_t at, bool fold_case) {
  if (at + 1 >= s.size() || s[at] != '\'') return at;
  const auto letter = [&](size_t i) {
    const char c = i < s.size() ? s[i] : '\0';
    return fold_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char a = letter(at + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
  if (fold_case && s.substr(at + 1, 2) == "\xC5\xBF") return at + 3;
  const char b = letter(at + 2);
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
  return at;
}

// `\s*[\r\n]+|\s+(?!\S)|\s+` (the first part only if `line_breaks`), at a white-space character.
size_t space_end(std::string_view s, size_t at, bool line_breaks) {
  Cursor p(s, at);
  size_t after_break = 0;
  size_t last = at;  // where the last white-space character starts
  while (!p.end() && p.is(kSpace)) {
    last = p.at;
    const bool breaks = p.is(kLineBreak);
    p.next();
    if (breaks) after_break = p.at;
  }
  if (line_breaks && after_break != 0) return after_break;
  if (p.end() || last == at) return p.at;
  return last;  // \s+(?!\S) leaves one character for the word that follows
}

// ` ?[^\s\p{L}\p{N}]+` and what follows it; `at` if it does not match.
size_t symbols_end(std::string_view s, size_t at, uint8_t excluded, std::string_view tail) {
  Cursor p(s, at);
  if (p.c.value == ' ') p.next();
  const size_t start = p.at;
  p.skip_until(excluded);
  if (p.at == start) return at;
  size_t end = p.at;
  while (end < s.size() && tail.find(s[end]) != std::string_view::npos) ++end;
  return end;
}

size_t gpt2_end(std::string_view s, size_t at) {
  if (const size_t end = contraction_end(s, at, false); end != at) return end;
  Cursor p(s, at);
  if (p.c.value == ' ') p.next();
  for (const uint8_t mask : {kLetter, kNumber}) {
    if (p.end() || !p.is(mask)) continue;
    p.skip_while(mask);
    return p.at;
  }
  const size_t end = symbols_end(s, at, kSpace | kLetter | kNumber, "");
  return end != at ? end : space_end(s, at, false);
}

size_t digits_end(std::string_view s, size_t at, int most) {
  Cursor p(s, at);
  for (int i = 0; i < most && !p.end() && p.is(kNumber); ++i) p.next();
  return p.at;
}

// Qwen2, Qwen3.5 and Llama 3: they differ in what a letter is and in the digits per word.
size_t qwen_end(std::string_view s, size_t at, uint8_t letters, int digits) {
  if (const size_t end = contraction_end(s, at, true); end != at) return end;
  Cursor p(s, at);
  if (!p.is(kLineBreak | kLetter | kNumber)) p.next();  // [^\r\n\p{L}\p{N}]?
  if (!p.end() && p.is(letters)) {
    p.skip_while(letters);
    return p.at;
  }
  p.move_to(at);
  if (p.is(letters)) {  // a mark, taken above as the leading symbol, is a word by itself
    p.skip_while(letters);
    return p.at;
  }
  if (p.is(kNumber)) return digits_end(s, at, digits);
  const size_t end = symbols_end(s, at, kSpace | letters | kNumber, "\r\n");
  return end != at ? end : space_end(s, at, true);
}

// `[upper-like]*[lower-like]+`, with the backtracking of a regex: 0 if it does not match.
size_t mixed_case_end(std::string_view s, size_t at) {
  Cursor p(s, at);
  size_t last_both = 0;  // the end of the last character that is in both sets
  while (!p.end() && p.is(kUpperLike)) {
    const bool both = p.is(kLowerLike);
    p.next();
    if (both) last_both = p.at;
  }
  if (!p.end() && p.is(kLowerLike)) {
    p.skip_while(kLowerLike);
    return p.at;
  }
  return last_both;
}

size_t o200k_end(std::string_view s, size_t at) {
  Cursor p(s, at);
  size_t after_symbol = at;
  if (!p.is(kLineBreak | kLetter | kNumber)) after_symbol = at + p.c.bytes;
  size_t end = mixed_case_end(s, after_symbol);
  if (end == 0 && after_symbol != at) end = mixed_case_end(s, at);
  if (end == 0) {  // `[upper-like]+[lower-like]*`; a lower-like character would have matched above
    for (const size_t start : {after_symbol, at}) {
      p.move_to(start);
      if (p.end() || !p.is(kUpperLike)) continue;
      p.skip_while(kUpperLike);
      end = p.at;
      break;
    }
  }
  if (end != 0) return contraction_end(s, end, true);
  p.move_to(at);
  if (p.is(kNumber)) return digits_end(s, at, 3);
  end = symbols_end(s, at, kSpace | kLetter | kNumber, "\r\n/");
  return end != at ? end : space_end(s, at, true);
}

void split_literal(const PreTokenizerStep& step, std::string_view word,
                   std::vector<std::string_view>& out) {
  const auto put = [&](std::string_view piece) {
    if (!piece.empty()) out.push_back(piece);
  };
  const size_t n = step.literal.size();
  size_t start = 0;  // of the word under construction
  size_t from = 0;   // where the search goes on
  for (size_t hit; (hit = word.find(step.literal, from)) != std::string_view::npos;) {
    switch (step.kind) {
      case PreTokenizerStep::kLiteralWithPrev:
        put(word.substr(start, hit + n - start));
        start = hit + n;
        break;
      case PreTokenizerStep::kLiteralWithNext:
        put(word.substr(start, hit - start));
        start = hit;
        break;
      default:
        put(word.substr(start, hit - start));
        if (step.kind == PreTokenizerStep::kLiteralIsolated) put(word.substr(hit, n));
        start = hit + n;
    }
    from = hit + n;
  }
  put(word.substr(start));
}

void split_digits(bool each, std::string_view word, std::vector<std::string_view>& out) {
  for (size_t at = 0; at < word.size();) {
    Cursor p(word, at);
    if (!p.is(kNumber)) {
      p.skip_until(kNumber);
    } else if (each) {
      p.next();
    } else {
      p.skip_while(kNumber);
    }
    out.push_back(word.substr(at, p.at - at));
    at = p.at;
  }
}

}  // namespace

Result<SplitPattern> split_pattern_of(std::string_view regex) {
  for (const auto& [text, pattern] : kKnownPatterns)
    if (text == regex) return pattern;
  return unimplemented("the pre-tokenizer's pattern `{}` is not one that Sluice knows", regex);
}

size_t next_word_end(SplitPattern pattern, std::string_view text, size_t at) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return gpt2_end(text, at);
    case SplitPattern::kQwen2:
      return qwen_end(text, at, kLetter, 1);
    case SplitPattern::kQwen35:
      return qwen_end(text, at, kLetter | kMark, 1);
    case SplitPattern::kLlama3:
      return qwen_end(text, at, kLetter, 3);
    case SplitPattern::kO200k:
      return o200k_end(text, at);
  }
  return text.size();
}

void apply_step(const PreTokenizerStep& step, std::vector<std::string_view>& words,
                std::deque<std::string>& storage) {
  std::vector<std::string_view> out;
  out.reserve(words.size());
  if (step.kind == PreTokenizerStep::kPrefixSpace) {
    for (const std::string_view word : words) {
      if (word.empty() || word[0] == ' ') {
        out.push_back(word);
      } else {
        out.push_back(storage.emplace_back(fmt::format(" {}", word)));
      }
    }
  }
  for (const std::string_view word : words) {
    switch (step.kind) {
      case PreTokenizerStep::kPrefixSpace:
        break;
      case PreTokenizerStep::kPattern:
        for (size_t at = 0; at < word.size();) {
          const size_t end = next_word_end(step.pattern, word, at);
          out.push_back(word.substr(at, end - at));
          at = end;
        }
        break;
      case PreTokenizerStep::kDigits:
      case PreTokenizerStep::kEachDigit:
        split_digits(step.kind == PreTokenizerStep::kEachDigit, word, out);
        break;
      default:
        split_literal(step, word, out);
    }
  }
  words = std::move(out);
}

}  // namespace sluice
