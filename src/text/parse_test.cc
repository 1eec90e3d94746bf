#include "text/parse.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

struct Parsed {
  std::string reasoning, content, calls;
  bool operator==(const Parsed&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Parsed& p) {
  return out << "[" << p.reasoning << "] [" << p.content << "] [" << p.calls << "]";
}

void add(Parsed& sum, const std::vector<OutputPiece>& pieces) {
  for (const OutputPiece& piece : pieces) {
    if (piece.kind == OutputPiece::kContent) sum.content += piece.text;
    if (piece.kind == OutputPiece::kReasoning) sum.reasoning += piece.text;
    if (piece.kind == OutputPiece::kToolCall) sum.calls += piece.name + piece.arguments + ";";
  }
}

// The whole text at once, byte by byte, and cut in two everywhere must all give the same.
Parsed parse(ChatFormat format, const std::string& text, bool in_reasoning = false) {
  const auto in_pieces = [&](const std::vector<std::string>& pieces) {
    OutputParser parser(format, in_reasoning);
    Parsed sum;
    for (const std::string& piece : pieces) add(sum, parser.push(piece));
    add(sum, parser.finish());
    return sum;
  };
  const Parsed whole = in_pieces({text});
  std::vector<std::string> bytes;
  for (const char c : text) bytes.emplace_back(1, c);
  EXPECT_EQ(in_pieces(bytes), whole) << text;
  for (size_t cut = 0; cut <= text.size(); ++cut)
    EXPECT_EQ(in_pieces({text.substr(0, cut), text.substr(cut)}), whole) << text << " at " << cut;
  return whole;
}

TEST(Parse, Qwen3) {
  const auto p = [](const std::string& text, bool inside = false) {
    return parse(ChatFormat::kQwen3, text, inside);
  };
  EXPECT_EQ(p("Hello\n"), (Parsed{"", "Hello\n", ""}));
  EXPECT_EQ(p("<think>\nhm\n\n</think>\n\nYes."), (Parsed{"hm", "Yes.", ""}));
  EXPECT_EQ(p("hm\n</think>\n\nYes.", true), (Parsed{"hm", "Yes.", ""}));
  EXPECT_EQ(p("<think>\nnever ends\n"), (Parsed{"never ends", "", ""}));
  EXPECT_EQ(p("a <think> b </think>"), (Parsed{"", "a <think> b </think>", ""}));
  EXPECT_EQ(p("Wait.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": "
              "\"x\"}}\n</tool_call>"),
            (Parsed{"", "Wait.", "f{\"b\":1,\"a\":\"x\"};"}));
  EXPECT_EQ(p("<tool_call>{\"name\":\"f\"}</"
              "tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}</tool_call>"),
            (Parsed{"", "", "f{};g{};"}));
  EXPECT_EQ(p("<tool_call>{\"name\":}</tool_call>!"),
            (Parsed{"", "<tool_call>{\"name\":}</tool_call>!", ""}));
  EXPECT_EQ(p("<tool_call>{\"na"), (Parsed{"", "<tool_call>{\"na", ""}));
  EXPECT_EQ(p("1 < 2 <b> <tool"), (Parsed{"", "1 < 2 <b> <tool", ""}));
}

TEST(Parse, Gemma4) {
  const auto p = [](const std::string& text) { return parse(ChatFormat::kGemma4, text); };
  EXPECT_EQ(p("Hello<turn|>"), (Parsed{"", "Hello", ""}));
  EXPECT_EQ(p("<|channel>thought\nhm\n<channel|>Yes."), (Parsed{"hm", "Yes.", ""}));
  EXPECT_EQ(p("<|channel>thought\n<channel|>Yes."), (Parsed{"", "Yes.", ""}));
  EXPECT_EQ(
      p("<|tool_call>call:get{a:<|\"|>x, {y}<|\"|>,b:[1,2.5,true,null],c:{<|\"|>d "
        "e<|\"|>:<|\"|><|\"|>}}<tool_call|><|tool_response>"),
      (Parsed{"", "", "get{\"a\":\"x, {y}\",\"b\":[1,2.5,true,null],\"c\":{\"d e\":\"\"}};"}));
  EXPECT_EQ(p("<|tool_call>call:now{}<tool_call|>"), (Parsed{"", "", "now{};"}));
  EXPECT_EQ(p("<|tool_call>call:f{a:<|\"|>x}<tool_call|>y"),
            (Parsed{"", "<|tool_call>call:f{a:<|\"|>x}<tool_call|>y", ""}));
  EXPECT_EQ(p("<|tool_call>call:f{" + std::string(200, '[')),
            (Parsed{"", "<|tool_call>call:f{" + std::string(200, '['), ""}));
}

TEST(Parse, Harmony) {
  const auto p = [](const std::string& text) { return parse(ChatFormat::kHarmony, text); };
  EXPECT_EQ(p("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>"
              "Yes.\n<|return|>"),
            (Parsed{"hm", "Yes.\n", ""}));
  EXPECT_EQ(p("<|channel|>final<|message|>Yes."), (Parsed{"", "Yes.", ""}));
  for (const std::string header : {" to=functions.f<|channel|>commentary <|constrain|>json",
                                   "<|channel|>commentary to=functions.f <|constrain|>json",
                                   "<|channel|>commentary to=functions.f json",
                                   "<|channel|>commentary to=functions.f<|constrain|>json"})
    EXPECT_EQ(p(header + "<|message|>{\"a\":1}<|call|>"), (Parsed{"", "", "f{\"a\":1};"}))
        << header;
  EXPECT_EQ(
      p("<|channel|>commentary<|message|>Let me "
        "look.<|end|><|start|>assistant<|channel|>commentary to=python<|message|>print()<|call|>"),
      (Parsed{"", "Let me look.", "pythonprint();"}));
  EXPECT_EQ(p("no header at all"), (Parsed{"", "no header at all", ""}));
  EXPECT_EQ(p("<|channel|>final<|message|>a<|end|>stray"), (Parsed{"", "astray", ""}));
}

TEST(Parse, PlainChatMl) {
  EXPECT_EQ(parse(ChatFormat::kChatMl, "<think>x</think>\n"),
            (Parsed{"", "<think>x</think>\n", ""}));
}

}  // namespace
}  // namespace sluice
