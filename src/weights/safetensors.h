// safetensors: strict reading of one file, and of a directory of shards with an index.
//
// Everything that the header says is checked before a view exists: the header's length against the
// file, strict JSON without duplicate keys, known dtypes, shapes whose product does not overflow,
// ranges of exactly the right size that tile the payload without hole or overlap to its last byte.
// Payloads may start at any byte, so views have any alignment.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "weights/tensor_source.h"

namespace sluice {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;
inline constexpr size_t kMaxSafetensorsTensors = 500'000;
inline constexpr size_t kMaxTensorRank = 16;

struct SafetensorsHeader {
  std::vector<TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

// Parses the JSON of a header whose payload is `payload[0, payload_bytes)`. The bytes themselves
// are not read.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, const std::byte* payload,
                                                   uint64_t payload_bytes, const std::string& file);
// The same for a whole file's bytes: the length prefix, the header, the payload.
Result<SafetensorsHeader> parse_safetensors(const std::byte* file_bytes, uint64_t bytes,
                                            const std::string& file);

Result<std::unique_ptr<TensorSource>> open_safetensors_file(const std::string& path);
// A directory with `index_name` (shards), which must exist.
Result<std::unique_ptr<TensorSource>> open_safetensors_index(const std::string& directory,
                                                             const std::string& index_name);

}  // namespace sluice
