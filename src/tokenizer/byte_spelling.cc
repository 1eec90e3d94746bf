#include <array>

#include "tokenizer/tokenizer_data.h"
#include "tokenizer/unicode.h"

namespace sluice {
namespace {

// GPT-2's code point for each byte: printable ones stand for themselves, the others follow from
// U+0100 on.
struct ByteSpelling {
  std::array<int16_t, 0x180> byte_of;
  ByteSpelling() {
    byte_of.fill(-1);
    int next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      byte_of[static_cast<size_t>(printable ? b : next++)] = static_cast<int16_t>(b);
    }
  }
};

}  // namespace

int byte_of_fallback(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const char lower = static_cast<char>(c | 0x20);
    if (c >= '0' && c <= '9') {
      value = value * 16 + (c - '0');
    } else if (lower >= 'a' && lower <= 'f') {
      value = value * 16 + (lower - 'a' + 10);
    } else {
      return -1;
    }
  }
  return value;
}

bool bytes_of_spelling(std::string_view text, std::string& bytes) {
  static const ByteSpelling spelling;
  bytes.clear();
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text, i);
    if (c.value >= spelling.byte_of.size() || spelling.byte_of[c.value] < 0) return false;
    bytes.push_back(static_cast<char>(spelling.byte_of[c.value]));
    i += c.bytes;
  }
  return true;
}

}  // namespace sluice
