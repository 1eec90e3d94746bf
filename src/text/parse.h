// OutputParser: what a model wrote, taken apart while it streams: reasoning, answer, tool calls.
//
// Input is the decoded text with special tokens kept (Detokenizer with skip_special = false), cut
// anywhere; the pieces add up to the same whatever the cuts. Nothing here fails: what does not
// follow the family's format comes out as content, as it was written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace sluice {

struct OutputPiece {
  enum Kind { kContent, kReasoning, kToolCall } kind;
  std::string text;       // content and reasoning: the next part of it
  std::string name;       // tool call: the function, without harmony's "functions."
  std::string arguments;  // tool call: JSON text as the OpenAI API has it
  bool operator==(const OutputPiece&) const = default;
};

class OutputParser {
 public:
  // `in_reasoning`: the prompt ended inside the reasoning (a template that writes <think> itself).
  explicit OutputParser(ChatFormat format, bool in_reasoning = false);

  std::vector<OutputPiece> push(std::string_view text);
  // The end of the output: what was held back, an unfinished tool call as content.
  std::vector<OutputPiece> finish();

 private:
  enum class Mode { kContent, kReasoning, kHeader, kCall, kBetween };
  using Pieces = std::vector<OutputPiece>;

  void scan(bool last, Pieces& out);
  void on_text(std::string_view text, Pieces& out);
  void on_tag(std::string_view tag, Pieces& out);
  bool qwen_tag(std::string_view tag, Pieces& out);
  bool gemma_tag(std::string_view tag, Pieces& out);
  bool harmony_tag(std::string_view tag, Pieces& out);
  void gemma_header(std::string_view text, Pieces& out);
  void harmony_message(Pieces& out);
  void open(Mode mode);          // starts a section; its leading line breaks are dropped
  void close_call(Pieces& out);  // the buffer is a whole call
  void show(std::string_view text, Pieces& out);  // in the section of mode_
  void raw(std::string_view text, Pieces& out);   // as content, untouched

  ChatFormat format_;
  Mode mode_ = Mode::kContent;
  std::vector<std::string_view> tags_;
  std::string held_;         // text that may be the start of a tag
  std::string buffer_;       // a header or a call, so far
  std::string opened_by_;    // the text that began the buffer, to give it back if it is malformed
  std::string recipient_;    // harmony: of the message under way
  std::string line_breaks_;  // at the end of the section so far: dropped if the section ends
  bool skip_breaks_ = false;
  bool shown_ = false;  // content was given out: a <think> after it is text
};

}  // namespace sluice
