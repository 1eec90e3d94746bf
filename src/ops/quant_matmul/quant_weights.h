// Weights with given codes, integers or fp8 e4m3, and scales, [N, K], packed once into the panels
// that quant_matmul streams, and the layouts that they are found in.
//
// A panel holds 16 columns n, zero-padded past N. Its groups of k follow each other, each padded to
// 8 k (fp8: 32): one line of 16 f32 scales, then lines of 64 bytes,
//   int8   for each 4 k: byte i of 32-bit lane c is 128 + code(k = 4 j + i)
//   int4   for each 8 k: byte i of lane c has 8 + code of k = 8 j + i in its low nibble and of
//          k = 8 j + 4 + i in its high one
//   fp8    for each 4 k: the 16 codes of k = 4 j, then those of the next
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/status.h"
#include "device/device.h"
#include "ops/quant_matmul/quant_panels.h"

namespace sluice {

enum class QuantLayout {
  kInt8,          // [N, K] codes
  kInt4RowPairs,  // [N/2, K] bytes: row 2 i in the low nibble, 2 i + 1 in the high one; signed
  kInt4KPairs,    // [N, K/2] bytes: even k in the low nibble; 8 + code (zero point 8)
  kFp8,           // [N, K] e4m3fn codes
};
std::string_view quant_layout_name(QuantLayout layout);

// As stored: N even for row pairs, K even for K pairs.
struct StoredQuant {
  QuantLayout layout = QuantLayout::kInt8;
  std::span<const std::byte> codes;
  std::span<const float> scales;  // [N, ceil(K / group)], finite and not zero
  int64_t n = 0, k = 0;
  int64_t group = 0;  // k per scale, 32 or more; the last group may be short; 0: per channel
  // fp8 only: scales [ceil(N / scale_block_n), ceil(K / scale_block_k)], finite; the last of both
  // may be short. 0: all of N, all of K. scale_block_k a multiple of `group`, by which the product
  // is summed, or all of K.
  int64_t scale_block_n = 1, scale_block_k = 0;
};

struct QuantWeights {
  QuantCodes codes = QuantCodes::kInt8;
  int64_t n = 0, k = 0;
  int64_t group = 0;  // k where the scales are per channel
  const std::byte* data = nullptr;
  size_t bytes = 0;
  std::shared_ptr<const void> owner;

  int64_t panels() const { return (n + 15) / 16; }
};

Result<QuantWeights> pack_quant_weights(Device& device, const StoredQuant& stored);

// The bytes of [N, K] int4 codes in one layout, from another; neither may be kInt8.
Status repack_int4(int64_t n, int64_t k, QuantLayout from, std::span<const std::byte> in,
                   QuantLayout to, std::span<std::byte> out);

// Code (n, k) of stored weights, and of packed ones: the definition that tests compare with.
int32_t stored_code(const StoredQuant& stored, int64_t n, int64_t k);
int32_t packed_code(const QuantWeights& w, int64_t n, int64_t k);
// The scale of (n, k); of fp8 codes above, the bits.
float stored_scale(const StoredQuant& stored, int64_t n, int64_t k);
float packed_scale(const QuantWeights& w, int64_t n, int64_t k);

}  // namespace sluice
