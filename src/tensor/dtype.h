// Element types of stored tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sluice {

// The storage types that safetensors names; sub-byte types are packed little end first.
enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kU64,
  kI64,
  kF16,
  kBF16,
  kF32,
  kF64,
  kC64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kF4,
  kF6E2M3,
  kF6E3M2,
};

// Bits of one element.
int dtype_bits(DType dtype);
// The safetensors spelling: "BF16", "F8_E4M3" ...
std::string_view dtype_name(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);

}  // namespace sluice
