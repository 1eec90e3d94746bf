// libFuzzer: bytes as a whole safetensors file. Views must stay inside it and tile its payload.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly this size, so that reading past it is seen.
  const std::vector<std::byte> file(reinterpret_cast<const std::byte*>(data),
                                    reinterpret_cast<const std::byte*>(data) + size);
  const auto check = [](const sluice::Result<sluice::SafetensorsHeader>& header,
                        const std::byte* begin, uint64_t bytes) {
    if (!header.ok()) {
      if (header.status().message().empty()) std::abort();
      return;
    }
    uint64_t total = 0;
    for (const sluice::TensorView& t : header->tensors) {
      if (t.data < begin || t.data + t.bytes > begin + bytes) std::abort();
      if (t.elements() < 0) std::abort();
      total += t.bytes;
    }
    if (total > bytes) std::abort();
  };
  check(sluice::parse_safetensors(file.data(), file.size(), "fuzz"), file.data(), file.size());
  // The same bytes as the header alone, so that mutations need not keep the length right.
  const std::vector<std::byte> payload(64);
  check(sluice::parse_safetensors_header({reinterpret_cast<const char*>(data), size},
                                         payload.data(), payload.size(), "fuzz"),
        payload.data(), payload.size());
  return 0;
}
