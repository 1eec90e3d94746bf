// Packing: every element of every stored dtype lands where packed_element reads it, padding is
// zero, and what cannot be packed is refused.
#include "ops/matmul/pack.h"

#include <gtest/gtest.h>

#include "ops/matmul/weights_data.h"

namespace sluice {
namespace {

using test::Random;

constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3,
                             DType::kF8E5M2};

float widened(DType dtype, uint32_t bits) {
  switch (dtype) {
    case DType::kF32:
      return bits_to_f32(bits);
    case DType::kF16:
      return f16_to_f32(static_cast<uint16_t>(bits));
    case DType::kBF16:
      return static_cast<float>(bf16::from_bits(static_cast<uint16_t>(bits)));
    case DType::kF8E4M3:
      return e4m3_to_f32(static_cast<uint8_t>(bits));
    default:
      return e5m2_to_f32(static_cast<uint8_t>(bits));
  }
}

// A stored matrix of random bit patterns at an odd address, [N, K] or transposed.
struct Stored {
  Stored(DType dtype, int64_t n, int64_t k, bool transposed, Random& random) {
    const int64_t size = dtype_bits(dtype) / 8;
    bytes.resize(static_cast<size_t>(1 + n * k * size));
    view.dtype = dtype;
    view.data = bytes.data() + 1;
    view.n = n;
    view.k = k;
    view.stride_n = transposed ? 1 : k;
    view.stride_k = transposed ? n : 1;
    for (int64_t i = 0; i < n * k; ++i) {
      uint32_t bits = 0;
      do bits = static_cast<uint32_t>(random.next() >> (64 - 8 * size));
      while (std::isnan(widened(dtype, bits)));
      std::memcpy(bytes.data() + 1 + i * size, &bits, static_cast<size_t>(size));
    }
  }
  float value(int64_t n, int64_t k) const {
    const int64_t size = dtype_bits(view.dtype) / 8;
    uint32_t bits = 0;
    std::memcpy(&bits, view.data + (n * view.stride_n + k * view.stride_k) * size,
                static_cast<size_t>(size));
    const float v = widened(view.dtype, bits);
    if (view.scale == nullptr) return v;
    return v * view.scale[n / view.scale_block_n * view.scale_cols + k / view.scale_block_k];
  }
  std::vector<std::byte> bytes;
  StoredMatrix view;
};

float in_format(WeightFormat format, float v) {
  return format == WeightFormat::kF32 ? v : round_to_bf16(v);
}

TEST(Pack, EveryElementOfEveryDtype) {
  const auto device = make_cpu_device();
  Random random(1);
  for (const DType dtype : kDTypes)
    for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16})
      for (const auto& [n, k] : {std::pair{1, 1}, {16, 32}, {17, 33}, {40, 300}, {3, 513}})
        for (const bool transposed : {false, true}) {
          const Stored w(dtype, n, k, transposed, random);
          const PackedMatrix m = pack_matrix(*device, w.view, format).value();
          ASSERT_EQ(m.bytes, packed_bytes(format, WeightLayout::kPanel16, n, k));
          for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < k; ++j)
              ASSERT_TRUE(
                  test::same_bits(packed_element(m, i, j), in_format(format, w.value(i, j))));
        }
}

TEST(Pack, PaddingIsZero) {
  const auto device = make_cpu_device();
  Random random(2);
  const Stored w(DType::kBF16, 17, 33, false, random);
  const PackedMatrix m = pack_matrix(*device, w.view, WeightFormat::kBF16).value();
  int64_t zeros = 0;
  for (size_t i = 0; i < m.bytes; i += 2)
    zeros += m.data[i] == std::byte{0} && m.data[i + 1] == std::byte{0} ? 1 : 0;
  int64_t stored_zeros = 0;
  for (int64_t i = 0; i < 17; ++i)
    for (int64_t j = 0; j < 33; ++j) stored_zeros += f32_to_bits(w.value(i, j)) == 0 ? 1 : 0;
  EXPECT_EQ(zeros, 32 * 64 - 17 * 33 + stored_zeros);
}

TEST(Pack, BlockScalesMultiplyBeforeRounding) {
  const auto device = make_cpu_device();
  Random random(3);
  Stored w(DType::kF8E4M3, 150, 200, false, random);
  const std::vector<float> scale = {0.5f, 1.1f, -3.0f, 0.25f};  // blocks of 128 x 128, ragged
  w.view.scale = scale.data();
  w.view.scale_block_n = w.view.scale_block_k = 128;
  w.view.scale_cols = 2;
  const PackedMatrix m = pack_matrix(*device, w.view, WeightFormat::kBF16).value();
  for (int64_t i = 0; i < 150; ++i)
    for (int64_t j = 0; j < 200; ++j)
      ASSERT_EQ(packed_element(m, i, j), round_to_bf16(w.value(i, j)));
}

TEST(Pack, GluKeepsGateAndUpPanelsTogether) {
  const auto device = make_cpu_device();
  Random random(4);
  for (const int64_t width : {1, 16, 20, 48}) {
    const Stored gate(DType::kBF16, width, 70, false, random);
    const Stored up(DType::kF32, width, 70, true, random);
    const PackedMatrix m = pack_glu(*device, gate.view, up.view, WeightFormat::kBF16).value();
    EXPECT_EQ(m.n, 2 * width);
    EXPECT_EQ(m.panels(), 2 * ceil_div(width, 16));
    for (int64_t i = 0; i < width; ++i)
      for (int64_t j = 0; j < 70; ++j) {
        ASSERT_TRUE(test::same_bits(packed_element(m, i, j), gate.value(i, j)));
        ASSERT_TRUE(
            test::same_bits(packed_element(m, width + i, j), round_to_bf16(up.value(i, j))));
      }
    // Unit 0 of gate and up are one panel apart.
    const size_t panel = panel_bytes(WeightFormat::kBF16, 70);
    uint16_t bits = 0;
    std::memcpy(&bits, m.data + panel, 2);
    EXPECT_EQ(bits, bf16(up.value(0, 0)).bits);
  }
}

TEST(Pack, Mxfp4IsExactPlainAndInterleaved) {
  const auto device = make_cpu_device();
  Random random(5);
  const test::StoredMxfp4Values w(36, 96, random, true);
  const auto value = [&](int64_t n, int64_t k) {
    const auto byte = static_cast<uint8_t>(w.blocks[static_cast<size_t>(n * 48 + k / 2)]);
    const auto scale = static_cast<uint8_t>(w.scales[static_cast<size_t>(n * 3 + k / 32)]);
    return e2m1_to_f32(k % 2 != 0 ? byte >> 4 : byte & 15) * e8m0_to_f32(scale);
  };
  const PackedMatrix plain = pack_mxfp4(*device, w.view()).value();
  const PackedMatrix glu = pack_mxfp4_glu_interleaved(*device, w.view()).value();
  for (int64_t n = 0; n < 36; ++n)
    for (int64_t k = 0; k < 96; ++k) {
      ASSERT_EQ(packed_element(plain, n, k), value(n, k));
      const int64_t stored = n < 18 ? 2 * n : 2 * (n - 18) + 1;
      ASSERT_EQ(packed_element(glu, n, k), value(stored, k));
    }
  StoredMxfp4 gate = w.view(), up = w.view();  // one behind the other
  gate.n = up.n = 18;
  up.blocks += 18 * 48;
  up.scales += 18 * 3;
  const PackedMatrix halves = pack_mxfp4_glu(*device, gate, up).value();
  for (int64_t n = 0; n < 36; ++n)
    for (int64_t k = 0; k < 96; ++k) ASSERT_EQ(packed_element(halves, n, k), value(n, k));
}

TEST(Pack, RefusesWhatItCannotPack) {
  const auto device = make_cpu_device();
  Random random(6);
  const Stored w(DType::kF32, 4, 8, false, random), other(DType::kF32, 4, 9, false, random);
  const auto refused = [](const Status& s, std::string_view word) {
    return !s.ok() && s.message().find(word) != std::string::npos;
  };
  EXPECT_TRUE(refused(pack_matrix(*device, w.view, WeightFormat::kF16).status(), "got f16"));
  EXPECT_TRUE(refused(pack_matrix(*device, w.view, WeightFormat::kMXFP4).status(), "32, got 8"));
  EXPECT_TRUE(refused(pack_glu(*device, w.view, other.view, WeightFormat::kF32).status(),
                      "up: expected [I, D] = [4, 8]"));
  StoredMatrix bad = w.view;
  bad.dtype = DType::kI64;
  EXPECT_TRUE(refused(pack_matrix(*device, bad, WeightFormat::kF32).status(), "got I64"));
  bad = w.view, bad.n = 0;
  EXPECT_TRUE(refused(pack_matrix(*device, bad, WeightFormat::kF32).status(), "got [0, 8]"));
  bad = w.view, bad.n = int64_t{1} << 40, bad.k = int64_t{1} << 40;
  EXPECT_FALSE(pack_matrix(*device, bad, WeightFormat::kF32).ok());
  const float one = 1;
  bad = w.view, bad.scale = &one, bad.scale_block_k = 4, bad.scale_cols = 1;
  EXPECT_TRUE(refused(pack_matrix(*device, bad, WeightFormat::kF32).status(), "scale"));
  test::StoredMxfp4Values fp4(3, 64, random);
  EXPECT_TRUE(refused(pack_mxfp4_glu_interleaved(*device, fp4.view()).status(), "even, got 3"));
  StoredMxfp4 ragged = fp4.view();
  ragged.k = 48;
  EXPECT_TRUE(refused(pack_mxfp4(*device, ragged).status(), "multiple of 32, got 48"));
  ragged.k = 32;
  EXPECT_TRUE(refused(pack_mxfp4_glu(*device, fp4.view(), ragged).status(), "up: expected [I, D]"));
  fp4.scales[5] = std::byte{255};
  const Status nan = pack_mxfp4(*device, fp4.view()).status();
  EXPECT_EQ(nan.code(), StatusCode::kDataLoss);
  EXPECT_TRUE(refused(nan, "N = 2, block 1"));
}

}  // namespace
}  // namespace sluice
