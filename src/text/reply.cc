#include "text/reply.h"

#include <algorithm>

namespace sluice {
namespace {

int32_t marker(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.id_of(text).value_or(-1);
}

}  // namespace

ReplyReader::ReplyReader(const Tokenizer& tokenizer) : detokenizer_(tokenizer, true) {}

ReplyReader::ReplyReader(const Tokenizer& tokenizer, ChatFormat format,
                         const std::vector<int32_t>& prompt)
    : detokenizer_(tokenizer, true), format_(format) {
  switch (format) {
    case ChatFormat::kQwen3:
    case ChatFormat::kChatMl:
      open_ = marker(tokenizer, "<think>");
      close_ = marker(tokenizer, "</think>");
      break;
    case ChatFormat::kGemma4:
      open_ = marker(tokenizer, "<|channel>");
      close_ = marker(tokenizer, "<channel|>");
      break;
    case ChatFormat::kHarmony:
      open_ = marker(tokenizer, "<|channel|>");
      message_ = marker(tokenizer, "<|message|>");
      end_ = marker(tokenizer, "<|end|>");
      start_ = marker(tokenizer, "<|start|>");
      place_ = Place::kHeader;  // the prompt ends with <|start|>assistant
      return;
  }
  // A prompt may end inside the reasoning: its last marker says so.
  for (auto it = prompt.rbegin(); it != prompt.rend(); ++it) {
    if (*it == close_) break;
    if (open_ < 0 || *it != open_) continue;
    place_ = Place::kReasoning;
    trim_ = true;
    break;
  }
}

// Moves on if `id` is a marker.
bool ReplyReader::move(int32_t id) {
  if (id < 0) return false;
  if (format_ == ChatFormat::kHarmony) {
    if (id == message_)
      place_ = header_.starts_with("analysis") || header_.starts_with("commentary")
                   ? Place::kReasoning
                   : Place::kAnswer;
    else if (id == open_ || id == end_ || id == start_)
      place_ = Place::kHeader;
    else
      return false;
    header_.clear();
    return true;
  }
  if (id == open_) {
    header_line_ = format_ == ChatFormat::kGemma4;
    place_ = header_line_ ? Place::kHeader : Place::kReasoning;
    header_.clear();
  } else if (id == close_) {
    place_ = Place::kAnswer;
  } else {
    return false;
  }
  trim_ = true;
  return true;
}

ReplyText ReplyReader::push(int32_t id) {
  ReplyText out;
  const Place before = place_;
  std::string text;
  if (move(id)) {
    // What was held back belongs to the part that ends here.
    text = detokenizer_.finish();
    if (before != Place::kHeader) out.part(before == Place::kReasoning) = text;
    return out;
  }
  text = detokenizer_.push(id);
  if (place_ == Place::kHeader) {
    header_ += text;
    const size_t line = header_line_ ? header_.find('\n') : std::string::npos;
    if (line == std::string::npos) return out;
    text = header_.substr(line + 1);
    place_ = Place::kReasoning;
  }
  if (trim_) {
    const size_t first = text.find_first_not_of(" \t\r\n");
    text.erase(0, std::min(first, text.size()));
    trim_ = text.empty();
  }
  out.part(place_ == Place::kReasoning) = std::move(text);
  return out;
}

ReplyText ReplyReader::finish() {
  ReplyText out;
  std::string text = detokenizer_.finish();
  if (place_ != Place::kHeader) out.part(place_ == Place::kReasoning) = std::move(text);
  return out;
}

}  // namespace sluice
