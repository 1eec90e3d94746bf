#include "text/reply.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

// Letters as tokens, and the markers of all formats.
Tokenizer letters() {
  const std::vector<std::string> vocabulary = {"a", "b", "f", "i", "l", "n",
                                               "s", "y", "Ċ", "Ġ", "Ã", "©"};
  const std::vector<std::string> markers = {"<think>",    "</think>",    "<|channel>",
                                            "<channel|>", "<|channel|>", "<|message|>",
                                            "<|end|>",    "<|start|>"};
  std::string vocab, added;
  int id = 0;
  for (const std::string& t : vocabulary)
    vocab += fmt::format("{}\"{}\":{}", id == 0 ? "" : ",", t, id), ++id;
  for (const std::string& t : markers) {
    added += fmt::format(
        R"({}{{"id":{},"content":"{}","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}})",
        added.empty() ? "" : ",", id, t);
    ++id;
  }
  const std::string json = fmt::format(
      R"({{"version":"1.0","added_tokens":[{}],"normalizer":null,)"
      R"("pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}},)"
      R"("post_processor":null,"decoder":{{"type":"ByteLevel"}},"model":{{"type":"BPE","vocab":{{{}}},"merges":[]}}}})",
      added, vocab);
  auto t = Tokenizer::parse(json, "", "letters");
  EXPECT_TRUE(t.ok()) << t.status().message();
  return std::move(t).value();
}

struct Parts {
  std::string answer, reasoning;
};
Parts read(ReplyReader reader, const Tokenizer& tokenizer, std::string_view text) {
  Parts parts;
  for (const int32_t id : tokenizer.encode(text, false)) {
    const ReplyText t = reader.push(id);
    parts.answer += t.answer;
    parts.reasoning += t.reasoning;
  }
  const ReplyText t = reader.finish();
  parts.answer += t.answer;
  parts.reasoning += t.reasoning;
  return parts;
}

TEST(ReplyReader, PlainTextIsAllAnswer) {
  const Tokenizer t = letters();
  const Parts p = read(ReplyReader(t), t, "ab\nsay");
  EXPECT_EQ(p.answer, "ab\nsay");
  EXPECT_EQ(p.reasoning, "");
}

TEST(ReplyReader, ThinkTags) {
  const Tokenizer t = letters();
  const Parts p = read(ReplyReader(t, ChatFormat::kQwen3, {}), t, "<think>\nab\n</think>\n\nfin");
  EXPECT_EQ(p.reasoning, "ab\n");
  EXPECT_EQ(p.answer, "fin");
}

TEST(ReplyReader, APromptMayOpenTheReasoning) {
  const Tokenizer t = letters();
  const auto open = t.encode("a<think>\n", false);
  const Parts p = read(ReplyReader(t, ChatFormat::kQwen3, open), t, "ab</think>fin");
  EXPECT_EQ(p.reasoning, "ab");
  EXPECT_EQ(p.answer, "fin");
  const auto closed = t.encode("<think>\n\n</think>\n", false);
  EXPECT_EQ(read(ReplyReader(t, ChatFormat::kQwen3, closed), t, "fin").answer, "fin");
}

TEST(ReplyReader, GemmaChannels) {
  const Tokenizer t = letters();
  const Parts p =
      read(ReplyReader(t, ChatFormat::kGemma4, {}), t, "<|channel>sin\nab\nba<channel|>fin");
  EXPECT_EQ(p.reasoning, "ab\nba");
  EXPECT_EQ(p.answer, "fin");
}

TEST(ReplyReader, HarmonyChannels) {
  const Tokenizer t = letters();
  const Parts p = read(ReplyReader(t, ChatFormat::kHarmony, {}), t,
                       "<|channel|>analysis<|message|>ab<|end|><|start|>assistant"
                       "<|channel|>final<|message|>fin ab");
  EXPECT_EQ(p.reasoning, "ab");
  EXPECT_EQ(p.answer, "fin ab");
}

TEST(ReplyReader, NeverHalfACharacter) {
  const Tokenizer t = letters();
  ReplyReader reader(t);
  const auto ids = t.encode("é", false);
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(reader.push(ids[0]).answer, "");
  EXPECT_EQ(reader.push(ids[1]).answer, "é");
}

}  // namespace
}  // namespace sluice
