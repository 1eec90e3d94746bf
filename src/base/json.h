// Strict JSON: the one way by which Sluice reads JSON that it did not write.
//
// On top of nlohmann-json: duplicate keys are errors, nesting and the number of values are bounded
// (deep nesting would overflow the stack when such a value is destroyed), UTF-8 is checked, and a
// failure is a Status that names `where` and the byte offset. No exception leaves these functions.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace sluice {

struct JsonLimits {
  int max_depth = 64;
  size_t max_values = 50'000'000;  // objects, arrays and scalars together
  bool reject_duplicate_keys = true;
};

// Parses the whole of `text`; anything but white space after the value is an error.
Result<nlohmann::json> parse_json(std::string_view text, std::string_view where,
                                  const JsonLimits& limits = {});

// Reads a regular file of at most `max_bytes` bytes. A directory, FIFO or device is refused before
// it is opened for reading, so that nothing hangs.
Result<std::string> read_text_file(const std::string& path, size_t max_bytes);

// read_text_file, then parse_json with the path as `where`. A UTF-8 byte order mark is refused.
Result<nlohmann::json> read_json_file(const std::string& path, size_t max_bytes = 256u << 20,
                                      const JsonLimits& limits = {});

}  // namespace sluice
