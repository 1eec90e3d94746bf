// Arbitrary JSON through the chat renderers: a Status with a sentence or a prompt, never a crash.
#include <cstdint>
#include <cstdlib>

#include "text/chat_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto request = sluice::parse_chat_request(text, "fuzz");
  if (!request.ok()) {
    if (request.status().message().empty()) std::abort();
    return 0;
  }
  request->current_date = "2026-01-01";  // the clock would make runs differ
  const auto prompt = sluice::render_chat(static_cast<sluice::ChatFormat>(data[0] % 4), *request);
  if (!prompt.ok()) {
    if (prompt.status().message().empty()) std::abort();
    return 0;
  }
  bool last = false;
  bool first = true;
  for (const auto& segment : prompt->segments()) {
    if (segment.text.empty() || (!first && segment.is_control == last)) std::abort();
    last = segment.is_control;
    first = false;
  }
  return 0;
}
