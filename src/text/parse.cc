#include "text/parse.h"

#include <algorithm>

#include "text/parse_calls.h"

namespace sluice {
namespace {

std::vector<std::string_view> tags_of(ChatFormat format) {
  switch (format) {
    case ChatFormat::kQwen3:
      return {"<think>", "</think>", "<tool_call>", "</tool_call>"};
    case ChatFormat::kGemma4:
      return {"<|channel>",   "<channel|>", "<|tool_call>",
              "<tool_call|>", "<turn|>",    "<|tool_response>"};
    case ChatFormat::kHarmony:
      return {"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>",
              "<|end|>",   "<|call|>",    "<|return|>"};
    case ChatFormat::kChatMl:
      break;
  }
  return {};
}

}  // namespace

OutputParser::OutputParser(ChatFormat format, bool in_reasoning)
    : format_(format), tags_(tags_of(format)) {
  if (format == ChatFormat::kHarmony) {
    mode_ = Mode::kHeader;  // the prompt ends with <|start|>assistant
  } else if (in_reasoning) {
    open(Mode::kReasoning);
  }
}

std::vector<OutputPiece> OutputParser::push(std::string_view text) {
  Pieces out;
  held_ += text;
  scan(false, out);
  return out;
}

std::vector<OutputPiece> OutputParser::finish() {
  Pieces out;
  scan(true, out);
  if (mode_ == Mode::kHeader || mode_ == Mode::kCall) {
    const std::string unfinished = opened_by_ + buffer_;
    buffer_.clear();
    opened_by_.clear();
    raw(unfinished, out);
  } else if (mode_ == Mode::kContent) {
    raw(line_breaks_, out);
  }
  line_breaks_.clear();
  return out;
}

void OutputParser::scan(bool last, Pieces& out) {
  size_t at = 0;
  while (at < held_.size()) {
    const std::string_view rest = std::string_view(held_).substr(at);
    const size_t start = rest.find('<');
    if (start != 0) {
      on_text(rest.substr(0, start), out);
      at += std::min(start, rest.size());
      continue;
    }
    const auto tag = std::find_if(tags_.begin(), tags_.end(),
                                  [&](std::string_view t) { return rest.starts_with(t); });
    if (tag != tags_.end()) {
      on_tag(*tag, out);
      at += tag->size();
      continue;
    }
    const bool may_come = std::any_of(tags_.begin(), tags_.end(),
                                      [&](std::string_view t) { return t.starts_with(rest); });
    if (may_come && !last) break;
    on_text("<", out);
    ++at;
  }
  held_.erase(0, at);
}

void OutputParser::open(Mode mode) {
  mode_ = mode;
  skip_breaks_ = true;
  line_breaks_.clear();
  buffer_.clear();
  opened_by_.clear();
}

void OutputParser::raw(std::string_view text, Pieces& out) {
  if (text.empty()) return;
  shown_ = true;
  if (!out.empty() && out.back().kind == OutputPiece::kContent) {
    out.back().text += text;
  } else {
    out.push_back({OutputPiece::kContent, std::string(text), {}, {}});
  }
}

void OutputParser::show(std::string_view text, Pieces& out) {
  while (skip_breaks_ && !text.empty() && text.front() == '\n') text.remove_prefix(1);
  if (text.empty()) return;
  skip_breaks_ = false;
  const size_t end = text.find_last_not_of('\n') + 1;  // 0 if there are only line breaks
  if (end != 0) {
    const std::string shown = line_breaks_ + std::string(text.substr(0, end));
    line_breaks_.clear();
    if (mode_ != Mode::kReasoning) {
      raw(shown, out);
    } else if (!out.empty() && out.back().kind == OutputPiece::kReasoning) {
      out.back().text += shown;
    } else {
      out.push_back({OutputPiece::kReasoning, shown, {}, {}});
    }
  }
  line_breaks_ += text.substr(end);
}

void OutputParser::on_text(std::string_view text, Pieces& out) {
  switch (mode_) {
    case Mode::kHeader:
      if (format_ == ChatFormat::kGemma4) {
        gemma_header(text, out);
        return;
      }
      [[fallthrough]];
    case Mode::kCall:
      buffer_ += text;
      return;
    case Mode::kBetween:  // harmony: text without a header
      if (text.find_first_not_of("\n ") == std::string_view::npos) return;
      open(Mode::kContent);
      [[fallthrough]];
    default:
      show(text, out);
  }
}

void OutputParser::on_tag(std::string_view tag, Pieces& out) {
  bool taken = false;
  if (format_ == ChatFormat::kQwen3) taken = qwen_tag(tag, out);
  if (format_ == ChatFormat::kGemma4) taken = gemma_tag(tag, out);
  if (format_ == ChatFormat::kHarmony) taken = harmony_tag(tag, out);
  if (!taken) on_text(tag, out);
}

bool OutputParser::qwen_tag(std::string_view tag, Pieces& out) {
  if (mode_ == Mode::kContent && tag == "<think>" && !shown_) {
    open(Mode::kReasoning);
  } else if (mode_ == Mode::kReasoning && tag == "</think>") {
    open(Mode::kContent);
  } else if (mode_ == Mode::kContent && tag == "<tool_call>") {
    open(Mode::kCall);
    opened_by_ = tag;
  } else if (mode_ == Mode::kCall && tag == "</tool_call>") {
    close_call(out);
  } else {
    return false;
  }
  return true;
}

bool OutputParser::gemma_tag(std::string_view tag, Pieces& out) {
  if (mode_ == Mode::kContent && tag == "<|channel>") {
    open(Mode::kHeader);
    opened_by_ = tag;
  } else if ((mode_ == Mode::kReasoning || mode_ == Mode::kHeader) && tag == "<channel|>") {
    open(Mode::kContent);
  } else if (mode_ == Mode::kContent && tag == "<|tool_call>") {
    open(Mode::kCall);
    opened_by_ = tag;
  } else if (mode_ == Mode::kCall && tag == "<tool_call|>") {
    close_call(out);
  } else {
    // Ends of the model's turn: no text.
    return mode_ == Mode::kContent && (tag == "<turn|>" || tag == "<|tool_response>");
  }
  return true;
}

// The channel's name stands on a line of its own: "thought". Others do not exist.
void OutputParser::gemma_header(std::string_view text, Pieces& out) {
  buffer_ += text;
  const size_t end = buffer_.find('\n');
  if (end == std::string::npos) return;
  const std::string name = buffer_.substr(0, end);
  const std::string rest = buffer_.substr(end + 1);
  const std::string all = opened_by_ + buffer_;
  if (name == "thought") {
    open(Mode::kReasoning);
    show(rest, out);
  } else {
    open(Mode::kContent);
    skip_breaks_ = false;
    show(all, out);
  }
}

bool OutputParser::harmony_tag(std::string_view tag, Pieces& out) {
  const bool ends = tag == "<|end|>" || tag == "<|return|>" || tag == "<|call|>";
  if (mode_ == Mode::kHeader && tag == "<|message|>") {
    harmony_message(out);
  } else if (tag == "<|start|>" && mode_ != Mode::kCall) {
    open(Mode::kHeader);
  } else if (ends && mode_ == Mode::kCall) {
    const std::string body(strip_call(buffer_));
    out.push_back({OutputPiece::kToolCall, {}, recipient_, body.empty() ? "{}" : body});
    open(Mode::kBetween);
  } else if (ends && mode_ != Mode::kHeader) {
    if (mode_ == Mode::kContent) raw(line_breaks_, out);
    open(Mode::kBetween);
  } else {
    return false;
  }
  return true;
}

void OutputParser::harmony_message(Pieces& out) {
  const HarmonyHeader header = read_harmony_header(buffer_);
  const std::string text = buffer_;
  if (!header.recipient.empty()) {
    open(Mode::kCall);
    recipient_ = header.recipient;
    opened_by_ = text + "<|message|>";
  } else {
    open(header.channel == "analysis" ? Mode::kReasoning : Mode::kContent);
  }
  skip_breaks_ = false;
}

void OutputParser::close_call(Pieces& out) {
  OutputPiece piece{OutputPiece::kToolCall, {}, {}, {}};
  const bool read = format_ == ChatFormat::kQwen3
                        ? read_json_call(buffer_, piece.name, piece.arguments)
                        : read_gemma4_call(buffer_, piece.name, piece.arguments);
  const std::string text =
      opened_by_ + buffer_ + (format_ == ChatFormat::kQwen3 ? "</tool_call>" : "<tool_call|>");
  open(Mode::kContent);
  if (read) {
    out.push_back(std::move(piece));
  } else {
    skip_breaks_ = false;
    raw(text, out);
  }
}

}  // namespace sluice
