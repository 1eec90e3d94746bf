#include "tensor/dtype.h"

#include <array>

namespace sluice {
namespace {
struct Entry {
  DType dtype;
  std::string_view name;
  int bits;
};
constexpr std::array kEntries = {
    Entry{DType::kBool, "BOOL", 8},
    Entry{DType::kU8, "U8", 8},
    Entry{DType::kI8, "I8", 8},
    Entry{DType::kU16, "U16", 16},
    Entry{DType::kI16, "I16", 16},
    Entry{DType::kU32, "U32", 32},
    Entry{DType::kI32, "I32", 32},
    Entry{DType::kU64, "U64", 64},
    Entry{DType::kI64, "I64", 64},
    Entry{DType::kF16, "F16", 16},
    Entry{DType::kBF16, "BF16", 16},
    Entry{DType::kF32, "F32", 32},
    Entry{DType::kF64, "F64", 64},
    Entry{DType::kC64, "C64", 64},
    Entry{DType::kF8E4M3, "F8_E4M3", 8},
    Entry{DType::kF8E5M2, "F8_E5M2", 8},
    Entry{DType::kF8E8M0, "F8_E8M0", 8},
    Entry{DType::kF8E4M3FNUZ, "F8_E4M3FNUZ", 8},
    Entry{DType::kF8E5M2FNUZ, "F8_E5M2FNUZ", 8},
    Entry{DType::kF4, "F4", 4},
    Entry{DType::kF6E2M3, "F6_E2M3", 6},
    Entry{DType::kF6E3M2, "F6_E3M2", 6},
};
}  // namespace

int dtype_bits(DType dtype) {
  return kEntries[static_cast<size_t>(dtype)].bits;
}
std::string_view dtype_name(DType dtype) {
  return kEntries[static_cast<size_t>(dtype)].name;
}
std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Entry& e : kEntries)
    if (e.name == name) return e.dtype;
  return std::nullopt;
}

}  // namespace sluice
