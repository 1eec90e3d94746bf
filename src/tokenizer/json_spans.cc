#include "tokenizer/json_spans.h"

#include <charconv>

#include "tokenizer/unicode.h"

namespace sluice {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// The end of the string whose opening quote is at `at` (one past the closing quote), or npos.
size_t string_end(std::string_view s, size_t at) {
  for (size_t i = at + 1; i < s.size(); ++i) {
    if (s[i] == '"') return i + 1;
    if (s[i] == '\\') ++i;
  }
  return std::string_view::npos;
}

// The end of the object or array that opens at `at`, or npos. Brackets are only counted: JsonSpan
// checks that they match.
size_t container_end(std::string_view s, size_t at) {
  size_t depth = 0;
  for (size_t i = at; i < s.size(); ++i) {
    const char c = s[i];
    if (c == '"') {
      i = string_end(s, i);
      if (i == std::string_view::npos) return i;
      --i;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (--depth == 0) return i + 1;
    }
  }
  return std::string_view::npos;
}

}  // namespace

CutModel cut_model(std::string_view s) {
  CutModel out;
  size_t kept = 0;  // everything before is in `rest`
  int depth = 0;
  bool in_model = false;
  std::string_view key;
  for (size_t i = 0; i < s.size(); ++i) {
    const char c = s[i];
    if (c == '"') {
      const size_t end = string_end(s, i);
      if (end == std::string_view::npos) break;
      key = s.substr(i + 1, end - i - 2);
      i = end - 1;
    } else if (c == '{' || c == '[') {
      const bool vocab = key == "vocab" && c == '{';
      const bool merges = key == "merges" && c == '[';
      if (in_model && depth == 2 && (vocab || merges)) {
        const size_t end = container_end(s, i);
        if (end == std::string_view::npos) break;
        (vocab ? out.vocab : out.merges) = s.substr(i, end - i);
        (vocab ? out.vocab_at : out.merges_at) = i;
        out.rest.append(s.substr(kept, i - kept)).append("null");
        kept = end;
        i = end - 1;
        key = {};
        continue;
      }
      if (depth == 1) in_model = key == "model" && c == '{';
      ++depth;
      key = {};
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c != ':' && !is_space(c)) {
      key = {};
    }
  }
  out.rest.append(s.substr(kept));
  return out;
}

char JsonSpan::peek() {
  while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool JsonSpan::accept(char c) {
  if (peek() != c || at_ >= text_.size()) return false;
  ++at_;
  return true;
}

bool JsonSpan::expect(char c) {
  return accept(c) || fail(fmt::format("expected '{}'", c));
}

bool JsonSpan::fail(std::string_view what) {
  if (status_.ok())
    status_ = data_loss("{}: not valid at byte {}: {}", where_, offset_ + at_, what);
  return false;
}

bool JsonSpan::hex4(uint32_t& out) {
  out = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    uint32_t digit;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint32_t>(c - '0');
    } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
      digit = static_cast<uint32_t>((c | 0x20) - 'a') + 10;
    } else {
      return fail("expected four hexadecimal digits after \\u");
    }
    out = out << 4 | digit;
  }
  return true;
}

bool JsonSpan::escape(std::string& out) {
  const char c = at_ < text_.size() ? text_[at_] : '\0';
  ++at_;
  switch (c) {
    case '"':
    case '\\':
    case '/':
      out.push_back(c);
      return true;
    case 'b':
      out.push_back('\b');
      return true;
    case 'f':
      out.push_back('\f');
      return true;
    case 'n':
      out.push_back('\n');
      return true;
    case 'r':
      out.push_back('\r');
      return true;
    case 't':
      out.push_back('\t');
      return true;
    case 'u':
      break;
    default:
      return fail("an escape that JSON does not have");
  }
  uint32_t high;
  if (!hex4(high)) return false;
  if (high >= 0xD800 && high <= 0xDFFF) {
    uint32_t low = 0;
    if (high > 0xDBFF || text_.substr(at_, 2) != "\\u") return fail("a lone surrogate");
    at_ += 2;
    if (!hex4(low)) return false;
    if (low < 0xDC00 || low > 0xDFFF) return fail("a lone surrogate");
    high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }
  append_utf8(high, out);
  return true;
}

bool JsonSpan::string(std::string& out) {
  out.clear();
  if (!expect('"')) return false;
  const size_t start = at_;
  bool ascii = true;
  while (at_ < text_.size()) {
    const auto c = static_cast<uint8_t>(text_[at_]);
    if (c == '"') {
      ++at_;
      if (!ascii && !is_valid_utf8(text_.substr(start, at_ - 1 - start)))
        return fail("a string that is not valid UTF-8");
      return true;
    }
    if (c < 0x20) return fail("a control character inside a string");
    ++at_;
    if (c == '\\') {
      if (!escape(out)) return false;
    } else {
      ascii = ascii && c < 0x80;
      out.push_back(static_cast<char>(c));
    }
  }
  return fail("a string without end");
}

bool JsonSpan::integer(int64_t& out) {
  peek();
  const char* const first = text_.data() + at_;
  const auto [end, error] = std::from_chars(first, text_.data() + text_.size(), out);
  if (error != std::errc() || (*first == '0' && end != first + 1))
    return fail("expected a whole number");
  at_ += static_cast<size_t>(end - first);
  return true;
}

}  // namespace sluice
