// Loading arbitrary bytes as a tokenizer.json: a Status or a tokenizer that works, never a crash.
#include <cstdint>
#include <cstdlib>

#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // The part behind a NUL is the tokenizer_config.json.
  const size_t cut = text.find('\0');
  const std::string_view config =
      cut == std::string_view::npos ? std::string_view() : text.substr(cut + 1);
  const auto loaded = sluice::Tokenizer::parse(text.substr(0, cut), config, "fuzz");
  if (!loaded.ok()) {
    if (loaded.status().message().empty()) std::abort();
    return 0;
  }
  const auto ids = loaded->encode("ab <|x|> \xE2\x96\x81 12\n\xFF", true);
  if (!sluice::is_valid_utf8(loaded->decode(ids, false))) std::abort();
  for (const int32_t id : ids) {
    if (id < 0 || id >= loaded->vocab_size()) std::abort();
  }
  return 0;
}
