#include "tokenizer/normalize.h"

namespace sluice {
namespace {

std::string_view strip(std::string_view text, bool left, bool right) {
  size_t first = text.size();  // of the first character that is not white space
  size_t last = 0;             // the end of the last one
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text, i);
    if ((char_class(c.value) & kSpace) == 0) {
      if (first == text.size()) first = i;
      last = i + c.bytes;
    }
    i += c.bytes;
  }
  if (last == 0) return left || right ? std::string_view() : text;
  const size_t begin = left ? first : 0;
  return text.substr(begin, (right ? last : text.size()) - begin);
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  size_t at = 0;
  for (size_t hit; (hit = text.find(pattern, at)) != std::string_view::npos;) {
    out.append(text.substr(at, hit - at)).append(content);
    at = hit + pattern.size();
  }
  out.append(text.substr(at));
  return out;
}

std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text) {
  std::string out(text);
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case NormalizerStep::kUnicode:
        out = normalize_unicode(out, step.form);
        break;
      case NormalizerStep::kReplace:
        out = replace_all(out, step.pattern, step.content);
        break;
      case NormalizerStep::kPrepend:
        if (!out.empty()) out.insert(0, step.content);
        break;
      case NormalizerStep::kLowerCase:
        out = lower_case(out);
        break;
      case NormalizerStep::kStrip:
        out = std::string(strip(out, step.left, step.right));
        break;
    }
  }
  return out;
}

}  // namespace sluice
