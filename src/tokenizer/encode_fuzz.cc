// Arbitrary bytes through the small tokenizers: ids in range, text back, content without control
// tokens, and the incremental detokeniser equal to the batch one.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tokenizer/detokenizer.h"
#include "tokenizer/unicode.h"

namespace {

using sluice::Tokenizer;

const std::vector<Tokenizer>& tokenizers() {
  static const std::vector<Tokenizer> loaded = [] {
    std::vector<Tokenizer> out;
    for (const std::string name : {"qwen", "o200k", "sentencepiece"}) {
      const char* const root = std::getenv("SLUICE_SOURCE");  // the tree; else run inside it
      auto one = Tokenizer::load((root != nullptr ? std::string(root) + "/" : std::string()) +
                                 "tests/data/tokenizers/" + name + ".json");
      if (!one.ok()) std::abort();
      out.push_back(std::move(*one));
    }
    return out;
  }();
  return loaded;
}

void check(bool holds) {
  if (!holds) std::abort();
}

void check_stream(const Tokenizer& t, const std::vector<int32_t>& ids) {
  sluice::Detokenizer stream(t, false);
  std::string sum;
  for (const int32_t id : ids) {
    const std::string piece = stream.push(id);
    check(sluice::is_valid_utf8(piece));
    sum += piece;
  }
  check(sum + stream.finish() == t.decode(ids, false));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto& all = tokenizers();
  const size_t which = data[0] % all.size();
  const Tokenizer& t = all[which];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string text = sluice::make_valid_utf8(bytes);
  const auto ids = t.encode(bytes, false);
  check(ids == t.encode(text, false));
  for (const int32_t id : ids) check(id >= 0 && id < t.vocab_size());
  check_stream(t, ids);
  const auto plain = t.encode(bytes, false, sluice::AddedTokens::kVocabulary);
  for (const int32_t id : plain) check(!t.is_special(id));
  // Byte-level models give every byte back; qwen normalises, sentencepiece maps U+2581 to a space.
  if (which == 1) check(t.decode(plain, true) == text);
  // Any ids decode to valid text.
  std::vector<int32_t> any;
  for (size_t i = 1; i + 1 < size; i += 2) any.push_back(data[i] * 4 + data[i + 1] % 4 - 8);
  check_stream(t, any);
  return 0;
}
