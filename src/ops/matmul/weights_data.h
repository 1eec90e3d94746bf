// Random packed weights for the tests and benches of ops that multiply.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "ops/matmul/pack.h"
#include "ops/matmul/pack_target.h"
#include "ops/matmul/panels.h"
#include "ops/matmul/stored_blocks.h"
#include "ops/test_data.h"
#include "tensor/arith.h"
#include "weights/block_panels.h"

namespace sluice::test {

// A stored f32 matrix [N, K] that owns its values.
struct StoredValues {
  StoredValues(int64_t n_, int64_t k_, Random& random, bool rough = false)
      : n(n_), k(k_), values(static_cast<size_t>(n_ * k_)) {
    for (float& v : values) v = rough ? random.rough() : random.normal();
  }
  StoredMatrix view() const { return stored_rows(values.data(), n, k); }
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

// Panels of a block format with every code, multiplier and sign, extremes more often than others,
// past K, too.
inline PackedMatrix random_blocks(Device& device, WeightFormat format, WeightLayout layout,
                                  int64_t n, int64_t k, Random& random) {
  Target t = allocate_panels(device, format, layout, n, k).value();
  const BlockTraits traits = block_traits(format);
  const auto f16 = [&random] {  // 2^-24 to 2: subnormal halves, too
    const int64_t exponent = random.chance(0.1) ? 0 : random.between(8, 15);
    return static_cast<uint16_t>(random.below(2) << 15 | exponent << 10 | random.below(1024));
  };
  const auto bits = [&random](int64_t low, int64_t high) {
    return random.chance(0.1) ? (random.chance(0.5) ? low : high) : random.between(low, high);
  };
  const int64_t all = block_groups(k);
  std::byte* block = t.data;
  for (int64_t p = 0; p < t.matrix.panels(); ++p)
    for (int64_t first = 0; first < all; first += kBlockGroups) {
      const int64_t groups = std::min(all - first, kBlockGroups);
      for (int64_t c = 0; c < kPanelColumns; ++c) {
        BlockColumn column;
        const bool flat = random.chance(0.05);
        for (uint8_t& code : column.code)
          code = static_cast<uint8_t>(flat ? 0 : bits(0, (1 << traits.bits) - 1));
        for (int64_t g = 0; g < 8; ++g) {
          column.scale[g] = f16();
          column.min[g] = f16();
          column.multiplier[g] = static_cast<uint8_t>(bits(0, 63));
          column.min_multiplier[g] = static_cast<uint8_t>(bits(0, 63));
        }
        for (int8_t& m : column.half_multiplier)
          m = static_cast<int8_t>(flat ? -128 : bits(-128, 127));
        write_block_column(format, column, c, groups, block);
      }
      block += block_bytes(traits, groups);
    }
  return std::move(t.matrix);
}

// Codes for tests that ask only how they are multiplied: the search for the least error would take
// most of their time.
inline constexpr IntPacking kQuickPacking = {.rounding = IntRounding::kNearest};

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
                                  Random& random, bool rough = false,
                                  const IntPacking& how = kQuickPacking) {
  if (format == WeightFormat::kMXFP4)
    return in_test_memory(
        pack_mxfp4(device, StoredMxfp4Values(n, k, random, rough).view()).value());
  if (is_block_format(format))
    return in_test_memory(random_blocks(device, format, WeightLayout::kPanel16, n, k, random));
  const StoredValues values(n, k, random, rough);
  return in_test_memory(pack_matrix(device, values.view(), format, how).value());
}
// kGluPanel16 [2 I, D].
inline PackedMatrix random_glu_panels(Device& device, WeightFormat format, int64_t width, int64_t d,
                                      Random& random, bool rough = false,
                                      const IntPacking& how = kQuickPacking) {
  if (format == WeightFormat::kMXFP4)
    return in_test_memory(
        pack_mxfp4_glu_interleaved(device, StoredMxfp4Values(2 * width, d, random, rough).view())
            .value());
  if (is_block_format(format))
    return in_test_memory(
        random_blocks(device, format, WeightLayout::kGluPanel16, 2 * width, d, random));
  return in_test_memory(pack_glu(device, StoredValues(width, d, random, rough).view(),
                                 StoredValues(width, d, random, rough).view(), format, how)
                            .value());
}

inline WeightFormat format_named(std::string_view name) {
  return weight_format_from_name(name).value();
}
inline Arith arith_named(std::string_view name) {
  return arith_from_name(name).value();
}

// The fixture of tests over rows of panel kernels.
class PanelRow : public ::testing::TestWithParam<Kernel<const PanelKernel>> {
 protected:
  void SetUp() override { SLUICE_SKIP_UNLESS_RUNNABLE(GetParam()); }
  static WeightFormat format() { return format_named(GetParam().weight); }
  static Arith arith() { return arith_named(GetParam().arith); }
};

}  // namespace sluice::test
