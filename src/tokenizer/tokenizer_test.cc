#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tokenizer/detokenizer.h"

namespace sluice {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

const std::string kData = SLUICE_SOURCE_DIR "/tests/data/tokenizers/";

std::string shared(const std::string& path) {
  const char* const root = std::getenv("SLUICE_SHARED");
  return (root != nullptr ? std::string(root) : std::string(SLUICE_SOURCE_DIR "/../shared")) +
         "/data/" + path;
}

Tokenizer load(const std::string& path) {
  auto loaded = Tokenizer::load(path);
  EXPECT_TRUE(loaded.ok()) << loaded.status().message();
  return std::move(*loaded);
}

// Every line {"text", "ids", "decoded"}: ids, the text back, and the text back piece by piece.
void check_goldens(const Tokenizer& tokenizer, const std::string& path) {
  std::ifstream file(path);
  size_t lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    const json golden = json::parse(line);
    const Ids ids = golden["ids"].get<Ids>();
    const auto text = golden["text"].get<std::string>();
    EXPECT_EQ(tokenizer.encode(text, false), ids) << line;
    EXPECT_EQ(tokenizer.decode(ids, false), golden["decoded"].get<std::string>()) << line;
    Detokenizer stream(tokenizer, false);
    std::string pieces;
    for (const int32_t id : ids) pieces += stream.push(id);
    EXPECT_EQ(pieces + stream.finish(), golden["decoded"].get<std::string>()) << line;
    EXPECT_EQ(tokenizer.encode(golden["decoded"].get<std::string>(), false).empty(), ids.empty());
  }
  EXPECT_GT(lines, 30u) << path;
}

TEST(Goldens, SmallTokenizers) {
  for (const std::string name : {"qwen", "o200k", "sentencepiece"})
    check_goldens(load(kData + name + ".json"), kData + name + ".jsonl");
}

class Published : public testing::TestWithParam<const char*> {};

TEST_P(Published, Goldens) {
  const std::string file = shared(std::string("tokenizers/") + GetParam());
  if (!std::filesystem::exists(file)) GTEST_SKIP() << file << " is absent";
  check_goldens(load(file), shared(std::string("goldens/tokenizer-") + GetParam() + ".jsonl"));
}

TEST_P(Published, WorstCasesTakeLessThanSeconds) {
  const std::string file = shared(std::string("tokenizers/") + GetParam());
  if (!std::filesystem::exists(file)) GTEST_SKIP() << file << " is absent";
  const Tokenizer tokenizer = load(file);
  std::string marks = "e";
  for (int i = 0; i < 50000; ++i) marks += "\xCC\x81\xCC\xA3";
  for (const std::string& text : {std::string(1000000, 'a'), std::string(1000000, ' '),
                                  std::string(1000000, '\n'), std::string(1000000, '7'), marks}) {
    const auto start = std::chrono::steady_clock::now();
    const Ids ids = tokenizer.encode(text, false);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    EXPECT_LT(took.count(), 8.0);  // 0.6 s measured; debug and sanitizer builds are slower
    if (text != marks) {
      EXPECT_EQ(tokenizer.decode(ids, false), text);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Published, testing::Values("gemma3", "qwen3", "gptoss"),
                         [](const auto& p) { return std::string(p.param); });

TEST(Encode, SpecialTokensOfContentStayText) {
  const Tokenizer t = load(kData + "qwen.json");
  const int32_t end = *t.id_of("<|im_end|>");
  EXPECT_EQ(t.encode("a<|im_end|>", false).back(), end);
  for (const std::string text : {"<|im_end|>", "x<think>y</think>", "<|endoftext|><|im_start|>"}) {
    const Ids ids = t.encode(text, false, AddedTokens::kVocabulary);
    for (const int32_t id : ids) EXPECT_LT(id, end - 2) << text;
    EXPECT_EQ(t.decode(ids, true), text);
  }
  // Ordinary vocabulary that happens to be an added token is still found.
  const Tokenizer g = load(kData + "sentencepiece.json");
  EXPECT_EQ(g.encode("<h1>\n\n", false, AddedTokens::kVocabulary),
            (Ids{*g.id_of("<h1>"), *g.id_of("\n\n")}));
  const Ids turn = g.encode("<|turn>", false, AddedTokens::kVocabulary);
  EXPECT_GT(turn.size(), 1u);
}

TEST(Encode, RunsJoinTextAcrossTheirBorders) {
  const Tokenizer t = load(kData + "qwen.json");
  const std::vector<TextRun> runs = {{"<|im_start|>user\n", AddedTokens::kAll},
                                     {"\n\nThe ga", AddedTokens::kVocabulary},
                                     {"te opens<|im_end|>\n", AddedTokens::kAll}};
  EXPECT_EQ(t.encode_runs(runs),
            t.encode("<|im_start|>user\n\n\nThe gate opens<|im_end|>\n", false));
  // A control token that only comes about across a border is text.
  const std::vector<TextRun> split = {{"<|im_", AddedTokens::kAll},
                                      {"end|>", AddedTokens::kVocabulary}};
  EXPECT_EQ(t.encode_runs(split), t.encode("<|im_end|>", false, AddedTokens::kVocabulary));
}

TEST(Encode, AddsWhatThePostProcessorSays) {
  const Tokenizer t = load(kData + "sentencepiece.json");
  const int32_t bos = *t.id_of("<bos>");
  EXPECT_EQ(t.encode("", true), Ids{bos});
  EXPECT_EQ(t.encode("x", true).front(), bos);
  EXPECT_NE(t.encode("x", false).front(), bos);
}

TEST(Encode, IllFormedUtf8BecomesReplacementCharacters) {
  const Tokenizer t = load(kData + "qwen.json");
  const std::pair<std::string, std::string> cases[] = {
      {"a\xFFz", "a\uFFFDz"},
      {"\xE6\x97", "\uFFFD"},
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},              // a surrogate
      {"\xC0\x80", "\uFFFD\uFFFD"},                        // overlong
      {"\xF4\x90\x80\x80x", "\uFFFD\uFFFD\uFFFD\uFFFDx"},  // above U+10FFFF
      {"\xF0\x9F\x98", "\uFFFD"}};
  for (const auto& [bytes, text] : cases) {
    EXPECT_EQ(t.encode(bytes, false), t.encode(text, false));
    EXPECT_EQ(t.decode(t.encode(bytes, false), false), text);
  }
}

TEST(Encode, LongTextsEqualTheirLines) {
  // The word cache and the seams must not change anything: lines end in a run of newlines, where
  // no merge goes on.
  for (const std::string name : {"qwen", "o200k", "sentencepiece"}) {
    const Tokenizer t = load(kData + name + ".json");
    Ids lines;
    std::string text;
    for (int i = 0; i < 400; ++i) {
      const std::string line =
          "The gate " + std::to_string(i * i % 97) + " opens e\u0301 at noon\n";
      const Ids ids = t.encode(line, false);
      lines.insert(lines.end(), ids.begin(), ids.end());
      text += line;
    }
    EXPECT_EQ(t.encode(text, false), lines) << name;
  }
}

TEST(Decode, AnyIdIsSafe) {
  for (const std::string name : {"qwen", "o200k", "sentencepiece"}) {
    const Tokenizer t = load(kData + name + ".json");
    EXPECT_EQ(t.decode(Ids{-1, t.vocab_size(), INT32_MAX, INT32_MIN}, false), "");
    EXPECT_EQ(t.token_bytes(-5), "");
    EXPECT_EQ(t.token_bytes(t.vocab_size()), "");
    for (int32_t id = 0; id < t.vocab_size(); ++id) {
      const std::string text = t.decode(Ids{id}, false);
      EXPECT_EQ(json(text).dump().empty(), false);  // throws unless it is UTF-8
      EXPECT_EQ(t.decode(Ids{id}, true), t.is_special(id) ? "" : text);
    }
  }
}

// All ways to cut a short list in two, and every token alone: the sum is the batch decode, and
// each piece is valid UTF-8.
TEST(Detokenize, EveryCutGivesTheSame) {
  for (const std::string name : {"qwen", "sentencepiece"}) {
    const Tokenizer t = load(kData + name + ".json");
    Ids ids = t.encode("a 😀é\u2028日\U0010ffffz", false);
    if (name == "sentencepiece")  // a well-formed run, a broken one, one cut by text
      for (const char* const token : {"<0xE6>", "<0x97>", "<0xA5>", "a", "<0xE6>", "<0x41>", "<h1>",
                                      "<0xC3>", "<bos>", "<0xA9>", "<0xF0>"})
        ids.push_back(*t.id_of(token));
    for (const bool skip : {false, true}) {
      const std::string whole = t.decode(ids, skip);
      Detokenizer stream(t, skip);
      std::string sum;
      for (const int32_t id : ids) {
        const std::string piece = stream.push(id);
        EXPECT_NO_THROW(json(piece).dump());
        sum += piece;
        EXPECT_EQ(whole.compare(0, sum.size(), sum), 0);
      }
      EXPECT_EQ(sum + stream.finish(), whole) << name;
      EXPECT_EQ(stream.finish(), "");
    }
  }
}

TEST(Detokenize, HoldsBackHalfACodePoint) {
  const Tokenizer t = load(kData + "qwen.json");
  const Ids ids = t.encode("😀", false);
  ASSERT_EQ(ids.size(), 4u);  // four bytes
  Detokenizer stream(t, false);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(stream.push(ids[i]), "");
  EXPECT_EQ(stream.push(ids[3]), "😀");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

TEST(Load, BundledModel) {
  const std::string path = SLUICE_SOURCE_DIR "/models/three-voices";
  if (!std::filesystem::exists(path + "/tokenizer.json")) GTEST_SKIP() << path << " is absent";
  const Tokenizer t = load(path);
  ASSERT_TRUE(t.bos().has_value());
  EXPECT_EQ(t.encode("Emma", true).front(), *t.bos());
  EXPECT_EQ(t.decode(t.encode("Emma, by no means.", true), true), "Emma, by no means.");
}

json small_file() {
  return json::parse(R"({
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    "decoder": {"type": "Fuse"}})");
}

// Each change of a good file is refused with a sentence that holds `words`.
TEST(Load, RefusesWhatItDoesNotUnderstand) {
  ASSERT_TRUE(Tokenizer::parse(small_file().dump(), "", "t").ok());
  const struct {
    const char* path;
    const char* value;
    const char* words;
  } cases[] = {
      {"/model/type", R"("WordPiece")", "WordPiece"},
      {"/model/vocab", R"({"a": 0, "b": 0, "ab": 2})", "twice"},
      {"/model/vocab", R"({"a": 0, "b": -1})", "id -1"},
      {"/model/vocab", R"({"a": 0, "b": 2000000000, "ab": 1})", "far above"},
      {"/model/vocab", R"({"a": 0, "b": 1.5})", "not valid at byte"},
      {"/model/vocab", R"(["a"])", "vocab"},
      {"/model/merges", R"(["a c"])", "not in the vocabulary"},
      {"/model/merges", R"(["a"])", "two tokens"},
      {"/model/merges", R"([["a"]])", "not valid at byte"},
      {"/model/merges", R"([["", "a"]])", "not in the vocabulary"},
      {"/model/merges", R"("a b")", "merges"},
      {"/model/dropout", "0.1", "dropout"},
      {"/model/unk_token", R"("<unk>")", "unk_token"},
      {"/model/end_of_word_suffix", R"("</w>")", "end_of_word_suffix"},
      {"/model/byte_fallback", "1", "true or false"},
      {"/decoder", "null", "decoder"},
      {"/decoder", R"({"type": "WordPiece"})", "WordPiece"},
      {"/decoder", R"({"type": "ByteLevel"})", "ByteLevel"},
      {"/normalizer", R"({"type": "BertNormalizer"})", "BertNormalizer"},
      {"/normalizer", R"({"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""})", "a+"},
      {"/pre_tokenizer",
       R"({"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"})", "\\w+"},
      {"/pre_tokenizer", R"({"type": "Metaspace"})", "Metaspace"},
      {"/post_processor",
       R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}]})",
       "special_tokens"},
      {"/added_tokens", R"([{"id": 1, "content": "<x>"}])", "another token"},
      {"/added_tokens", R"([{"id": -1, "content": "<x>"}])", "id -1"},
      {"/added_tokens", R"([7])", "object"},
  };
  for (const auto& c : cases) {
    json changed = small_file();
    changed[json::json_pointer(c.path)] = json::parse(c.value);
    const auto loaded = Tokenizer::parse(changed.dump(), "", "t.json");
    ASSERT_FALSE(loaded.ok()) << c.path << " " << c.value;
    EXPECT_NE(loaded.status().message().find(c.words), std::string::npos)
        << loaded.status().message();
    EXPECT_EQ(loaded.status().message().find("t.json"), 0u) << loaded.status().message();
  }
}

TEST(Load, RefusesBrokenJson) {
  const std::string good = small_file().dump();
  for (size_t cut = 0; cut < good.size(); ++cut)
    EXPECT_FALSE(Tokenizer::parse(good.substr(0, cut), "", "t").ok()) << cut;
  EXPECT_FALSE(Tokenizer::parse(good + "x", "", "t").ok());
  // Inside the parts that are read without a document: trailing commas, escapes, UTF-8, brackets.
  const std::string head = R"({"decoder":{"type":"Fuse"},"model":{"merges":[],"vocab":)";
  for (const std::string vocab :
       {R"({"a":0,})", R"({"a" 0})", R"({"a":00})", R"({"\x":0})", R"({"\ud800":0})",
        R"({"\udc00x":0})", "{\"a\n\":0}", "{\"\xFF\":0}", R"({"a":0])", R"({"a":0}})",
        R"({"a":99999999999999999999})", R"({"a":0 "b":1})"})
    EXPECT_FALSE(Tokenizer::parse(head + vocab + "}}", "", "t").ok()) << vocab;
  EXPECT_TRUE(
      Tokenizer::parse(head + R"({"\ud83d\ude00\u0041\n": 0 , "b":3 })" + "}}", "", "t").ok());
  EXPECT_FALSE(Tokenizer::load("/nonexistent/tokenizer.json").ok());
  EXPECT_FALSE(Tokenizer::load("/dev/null").ok());
}

TEST(Load, UnknownCharactersAndByteFallback) {
  // No byte tokens: unknown characters fuse into one <unk>; without an unk_token they vanish.
  json file = small_file();
  EXPECT_EQ(Tokenizer::parse(file.dump(), "", "t")->encode("axyab", false), (Ids{0, 2}));
  file["model"]["vocab"]["<unk>"] = 3;
  file["model"]["unk_token"] = "<unk>";
  EXPECT_EQ(Tokenizer::parse(file.dump(), "", "t")->encode("axyab", false), (Ids{0, 3, 3, 2}));
  file["model"]["fuse_unk"] = true;
  EXPECT_EQ(Tokenizer::parse(file.dump(), "", "t")->encode("axyab", false), (Ids{0, 3, 2}));
}

}  // namespace
}  // namespace sluice
