#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "tokenizer/unicode_versions.h"

namespace sluice {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

uint8_t general_class(uint32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return kLetter | kUpperLike | kWordLike;
    case UTF8PROC_CATEGORY_LL:
      return kLetter | kLowerLike | kWordLike;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter | kUpperLike | kLowerLike | kWordLike;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark | kUpperLike | kLowerLike | kWordLike;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return kNumber | kWordLike;
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    case UTF8PROC_CATEGORY_PC:
      return kWordLike;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return kSpace;
    case UTF8PROC_CATEGORY_CN:
      if (const ClassRange* const later = find_range(kAssignedLater, c))
        return later->char_class | kWordLike;
      return 0;
    default:
      return 0;
  }
}

uint8_t full_class(uint32_t c) {
  if (c == '\n' || c == '\r') return kSpace | kLineBreak;
  if ((c >= 9 && c <= 13) || c == 0x85) return kSpace;
  if (c == 0x200C || c == 0x200D) return kWordLike;  // Join_Control
  return general_class(c);
}

const std::array<uint8_t, 0x800>& low_classes() {
  static const std::array<uint8_t, 0x800> table = [] {
    std::array<uint8_t, 0x800> t{};
    for (uint32_t c = 0; c < t.size(); ++c) t[c] = full_class(c);
    return t;
  }();
  return table;
}

bool continues(std::string_view s, size_t i) {
  return (static_cast<uint8_t>(s[i]) & 0xC0) == 0x80;
}

// Canonical decomposition, marks still in the text's order.
std::vector<utf8proc_int32_t> decompose(std::string_view text, utf8proc_option_t options) {
  std::vector<utf8proc_int32_t> out;
  out.reserve(text.size());
  constexpr int kLongest = 32;  // U+FDFA decomposes into 18
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text, i);
    i += c.bytes;
    if (find_range(kUncomposed, c.value) != nullptr) {
      out.push_back(static_cast<utf8proc_int32_t>(c.value));
      continue;
    }
    const size_t at = out.size();
    out.resize(at + kLongest);
    int boundary = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c.value), out.data() + at, kLongest, options, &boundary);
    out.resize(at + static_cast<size_t>(std::clamp<utf8proc_ssize_t>(n, 0, kLongest)));
  }
  return out;
}

int combining_class(utf8proc_int32_t c) {
  if (c < 0x300) return 0;
  const int value = utf8proc_get_property(c)->combining_class;
  return value != 0 && find_range(kUnorderedMarks, static_cast<uint32_t>(c)) != nullptr ? 0 : value;
}

// Canonical order: each run of marks sorted by combining class, stably. (utf8proc_map would do it
// by exchanging neighbours: 20 s for a run of 100,000 marks.)
void order_marks(std::vector<utf8proc_int32_t>& points) {
  for (size_t i = 0; i < points.size(); ++i) {
    if (combining_class(points[i]) == 0) continue;
    size_t end = i + 1;
    while (end < points.size() && combining_class(points[end]) != 0) ++end;
    std::stable_sort(points.begin() + static_cast<long>(i), points.begin() + static_cast<long>(end),
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

// What `first` and `second` compose into, or 0.
utf8proc_int32_t composite(utf8proc_int32_t first, utf8proc_int32_t second) {
  if (second < 0x300 || (second >= 0x3400 && second < 0xA000)) return 0;  // never second in a pair
  utf8proc_int32_t pair[2] = {first, second};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  if (utf8proc_normalize_utf32(pair, 2, options) != 1) return 0;
  return find_range(kUncomposed, static_cast<uint32_t>(pair[0])) == nullptr ? pair[0] : 0;
}

// Canonical composition, with our own idea of combining classes.
void compose_points(std::vector<utf8proc_int32_t>& points) {
  size_t out = 0;
  size_t starter = points.size();  // where the last one lies; none yet
  int last = 0;                    // class of the mark before
  for (const utf8proc_int32_t c : points) {
    const int combining = combining_class(c);
    if (starter < out && (out == starter + 1 || last < combining)) {
      if (const utf8proc_int32_t both = composite(points[starter], c); both != 0) {
        points[starter] = both;
        continue;
      }
    }
    if (combining == 0) starter = out;
    last = combining;
    points[out++] = c;
  }
  points.resize(out);
}

}  // namespace

uint8_t char_class(uint32_t code_point) {
  return code_point < 0x800 ? low_classes()[code_point] : full_class(code_point);
}

void append_utf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

Utf8Step utf8_step(std::string_view s) {
  const auto lead = static_cast<uint8_t>(s[0]);
  if (lead < 0x80) return {Utf8Step::kComplete, 1};
  uint32_t length = 0;
  uint8_t low = 0x80;   // bounds of the second byte: they exclude overlong forms,
  uint8_t high = 0xBF;  // surrogates and values above U+10FFFF
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {Utf8Step::kInvalid, 1};
  }
  if (s.size() < 2) return {Utf8Step::kIncomplete, 1};
  const auto second = static_cast<uint8_t>(s[1]);
  if (second < low || second > high) return {Utf8Step::kInvalid, 1};
  for (uint32_t i = 2; i < length; ++i) {
    if (i >= s.size()) return {Utf8Step::kIncomplete, i};
    if (!continues(s, i)) return {Utf8Step::kInvalid, i};
  }
  return {Utf8Step::kComplete, length};
}

bool is_valid_utf8(std::string_view s) {
  size_t i = 0;
  while (i < s.size()) {
    if (static_cast<uint8_t>(s[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Step step = utf8_step(s.substr(i));
    if (step.kind != Utf8Step::kComplete) return false;
    i += step.bytes;
  }
  return true;
}

std::string make_valid_utf8(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    const Utf8Step step = utf8_step(s.substr(i));
    if (step.kind == Utf8Step::kComplete) {
      out.append(s.substr(i, step.bytes));
    } else {
      out.append(kReplacement);
    }
    i += step.bytes;
  }
  return out;
}

std::string normalize_unicode(std::string_view text, NormalForm form) {
  // Composed text below U+0300 stays as it is; decomposed forms change from U+00A0 on.
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const uint8_t first_affected = form == NormalForm::kNfc ? 0xCC : 0x80;
  bool affected = false;
  for (const char c : text) affected = affected || static_cast<uint8_t>(c) >= first_affected;
  if (!affected) return std::string(text);
  int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  std::vector<utf8proc_int32_t> points = decompose(text, static_cast<utf8proc_option_t>(options));
  order_marks(points);
  if (compose) compose_points(points);
  std::string out;
  out.reserve(text.size());
  for (const utf8proc_int32_t c : points) append_utf8(static_cast<uint32_t>(c), out);
  return out;
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text, i);
    if (c.value == 0x130) {
      out += "i\xCC\x87";  // the one letter whose lower case is two code points
    } else {
      append_utf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))),
                  out);
    }
    i += c.bytes;
  }
  return out;
}

}  // namespace sluice
