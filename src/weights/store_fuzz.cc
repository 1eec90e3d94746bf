// libFuzzer: bytes as a packed store. What is accepted must lie in the file, in order, in the sizes
// that its formats have. A million runs (RUNS=1000000 make fuzz) found nothing on 21 November 2026.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "weights/checksum.h"
#include "weights/store_format.h"

namespace {

using namespace sluice;

void check(const std::vector<std::byte>& file) {
  const Result<StoreHeader> header = parse_store(file.data(), file.size(), "fuzz/weights.sluice");
  if (!header.ok()) {
    const std::string& message = header.status().message();
    if (message.find("sluice pack ") == message.npos) std::abort();
    for (const char c : message)
      if (static_cast<unsigned char>(c) < 0x20) std::abort();
    return;
  }
  uint64_t at = header->payload;
  for (const StoreEntry& e : header->entries) {
    if (e.offset < at || e.offset % 64 != 0 || e.bytes != e.expected_bytes()) std::abort();
    if (e.bytes == 0 || e.n < 1 || e.offset + e.bytes > file.size()) std::abort();
    at = e.offset + e.bytes;
  }
  if (at != file.size()) std::abort();
}

// The same bytes as an index, in a file whose header agrees with it, so that mutations get past the
// checksums. Only the size of the file is the input's to choose.
void check_as_index(const uint8_t* data, size_t size) {
  if (size < 2) return;
  const size_t payload_pages = data[0] % 8, extra = data[1];
  data += 2;
  size -= 2;
  const size_t front = (kStorePage + size + kStorePage - 1) / kStorePage * kStorePage;
  std::vector<std::byte> file(front + payload_pages * 64 + extra);
  const std::string page = encode_store({.fits_bf16 = true, .model = "m", .options = "o"});
  std::memcpy(file.data(), page.data(), kStorePage);
  std::memcpy(file.data() + kStorePage, data, size);
  const uint64_t fields[3] = {file.size(), size, checksum(data, size)};
  std::memcpy(file.data() + 24, fields, sizeof(fields));
  RunningChecksum sum;
  sum.add(file.data(), 120);
  sum.add(file.data() + 128, kStorePage - 128);
  const uint64_t value = sum.value();
  std::memcpy(file.data() + 120, &value, 8);
  check(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  check_as_index(data, size);
  // A copy of exactly this size, so that reading past it is seen.
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  check(std::vector<std::byte>(bytes, bytes + size));
  return 0;
}
