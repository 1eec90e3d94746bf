// The file of a packed store: header, index, payload.
//
// A packed store is a directory: `weights.sluice`, described here, and copies of the small files
// that a model has beside its weights (config.json, generation_config.json, the tokenizer's), so
// that it can be moved alone and stands wherever a model's directory does.
//
// weights.sluice, integers little-endian:
//   offset  bytes
//   0       8     magic: 0x89 "SLUICE" 0x0a
//   8       4     version of this format
//   12      4     0x01020304: the byte order
//   16      4     layout id of the panels (weights/packed.h)
//   20      4     computes that the weights are fit for: bit 0 f32, bit 1 bf16
//   24      8     bytes of the whole file
//   32      8     bytes of the index
//   40      8     checksum of the index
//   48      4, 4  bytes of the model's path and of the options below
//   56      64    zeros
//   120     8     checksum of bytes [0, 120) and [128, 4096)
//   128           the model's path and pack's options: how to make this store again; then zeros
//   4096          the index: files copied beside, then one entry per tensor
//   next multiple of 4096: the payload, panels as the kernels stream them and vectors of f32.
//                 Every tensor starts at a multiple of 64, large ones at a page
// In the index a text is its length (2 bytes) and its bytes; formats, layouts, roles and dtypes are
// texts, so that the order of an enumeration never matters.
//
// Opening checks header, index and sizes, and touches nothing else: it costs a page-in. A tensor's
// own checksum is for `pack --verify`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/arith.h"
#include "tensor/dtype.h"
#include "weights/packed.h"

namespace sluice {

inline constexpr uint32_t kStoreVersion = 1;
inline constexpr std::string_view kStoreFileName = "weights.sluice";
inline constexpr uint64_t kStorePage = 4096;
inline constexpr size_t kMaxStoreEntries = 2'000'000;

// A file copied beside the weights.
struct StoreFile {
  std::string name;
  uint64_t bytes = 0, checksum = 0;
};

struct StoreEntry {
  std::string name, role;
  bool vector = false;  // n values of f32; else a matrix
  WeightFormat format = WeightFormat::kF32;
  WeightLayout layout = WeightLayout::kPanel16;
  DType stored = DType::kBF16;  // what it was made from
  int64_t n = 0, k = 0, block = 0;
  uint64_t offset = 0, bytes = 0, checksum = 0;
  // Sums of squares: of what packing lost, and of the weights themselves (0, 0 where it is exact).
  double error = 0, signal = 0;
  // Only in a pack's report, not in the file: what GGUF's format of that width would have lost.
  double beside = 0;

  uint64_t expected_bytes() const {
    return vector ? static_cast<uint64_t>(n) * 4 : packed_bytes(format, layout, n, k, block);
  }
};

struct StoreHeader {
  bool fits_f32 = false, fits_bf16 = false;
  std::string model, options;
  std::vector<StoreFile> files;
  std::vector<StoreEntry> entries;
  uint64_t payload = 0, file_bytes = 0;

  bool fits(Compute compute) const { return compute == Compute::kF32 ? fits_f32 : fits_bf16; }
};

// Gives every entry its bytes and offset, and the file its size.
void lay_out_store(StoreHeader& header);
// Everything in front of the payload, checksums included.
std::string encode_store(const StoreHeader& header);
// The reverse, for a whole file's bytes; the payload is not read. `where` names the file, and the
// directory in the command that every refusal ends with.
Result<StoreHeader> parse_store(const std::byte* bytes, uint64_t size, const std::string& where);

// "sluice pack MODEL -o STORE ...": quoted where a shell would mind.
std::string pack_command(std::string_view model, std::string_view store, std::string_view options);

}  // namespace sluice
