// Random packed weights for the tests and benches of ops that multiply.
#pragma once

#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "ops/matmul/pack.h"
#include "ops/test_data.h"
#include "tensor/arith.h"

namespace sluice::test {

// A stored f32 matrix [N, K] that owns its values.
struct StoredValues {
  StoredValues(int64_t n_, int64_t k_, Random& random, bool rough = false)
      : n(n_), k(k_), values(static_cast<size_t>(n_ * k_)) {
    for (float& v : values) v = rough ? random.rough() : random.normal();
  }
  StoredMatrix view() const {
    StoredMatrix m;
    m.data = reinterpret_cast<const std::byte*>(values.data());
    m.n = n;
    m.k = m.stride_n = k;
    return m;
  }
  int64_t n, k;
  std::vector<float> values;
};

// gpt-oss's blocks and scales for [N, K], K % 32 == 0.
struct StoredMxfp4Values {
  StoredMxfp4Values(int64_t n_, int64_t k_, Random& random, bool rough = false)
      : n(n_), k(k_), blocks(static_cast<size_t>(n_ * k_ / 2)), scales(blocks.size() / 16) {
    for (std::byte& b : blocks) b = static_cast<std::byte>(random.below(256));
    for (std::byte& s : scales)
      s = static_cast<std::byte>(rough && random.chance(0.1) ? random.below(255)
                                                             : random.between(120, 128));
  }
  StoredMxfp4 view() const { return {blocks.data(), scales.data(), n, k}; }
  int64_t n, k;
  std::vector<std::byte> blocks, scales;
};

// A random way to choose the codes of int4 and int8 weights.
inline IntPacking random_packing(Random& random) {
  IntPacking how;
  how.block = int64_t{128} << random.below(3);
  how.rounding = random.chance(0.5) ? IntRounding::kSearch : IntRounding::kNearest;
  return how;
}

// The same panels in memory from operator new, which CUDA rows can read (test_data.h).
inline PackedMatrix in_test_memory(PackedMatrix packed) {
  constexpr std::align_val_t kAlign{64};
  std::shared_ptr<std::byte> copy(static_cast<std::byte*>(::operator new(packed.bytes, kAlign)),
                                  [kAlign](std::byte* p) { ::operator delete(p, kAlign); });
  std::memcpy(copy.get(), packed.data, packed.bytes);
  packed.data = copy.get();
  packed.owner = std::move(copy);
  return packed;
}

// kPanel16 [N, K].
inline PackedMatrix random_panels(Device& device, WeightFormat format, int64_t n, int64_t k,
                                  Random& random, bool rough = false, const IntPacking& how = {}) {
  if (format == WeightFormat::kMXFP4)
    return in_test_memory(
        pack_mxfp4(device, StoredMxfp4Values(n, k, random, rough).view()).value());
  const StoredValues values(n, k, random, rough);
  return in_test_memory(pack_matrix(device, values.view(), format, how).value());
}
// kGluPanel16 [2 I, D].
inline PackedMatrix random_glu_panels(Device& device, WeightFormat format, int64_t width, int64_t d,
                                      Random& random, bool rough = false,
                                      const IntPacking& how = {}) {
  if (format == WeightFormat::kMXFP4)
    return in_test_memory(
        pack_mxfp4_glu_interleaved(device, StoredMxfp4Values(2 * width, d, random, rough).view())
            .value());
  return in_test_memory(pack_glu(device, StoredValues(width, d, random, rough).view(),
                                 StoredValues(width, d, random, rough).view(), format, how)
                            .value());
}

inline WeightFormat format_named(std::string_view name) {
  return name == "f32"    ? WeightFormat::kF32
         : name == "bf16" ? WeightFormat::kBF16
         : name == "int4" ? WeightFormat::kInt4
         : name == "int8" ? WeightFormat::kInt8
                          : WeightFormat::kMXFP4;
}
inline Arith arith_named(std::string_view name) {
  return name == arith_name(Arith::kF32Fma)     ? Arith::kF32Fma
         : name == arith_name(Arith::kBf16Tile) ? Arith::kBf16Tile
                                                : Arith::kInt;
}

}  // namespace sluice::test
