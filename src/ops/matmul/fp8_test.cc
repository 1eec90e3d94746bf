// fp8 panels: codes as found and codes chosen, products equal to those of the widened weights bit
// for bit, what packing refuses.
#include <gtest/gtest.h>

#include "ops/matmul/matmul.h"
#include "ops/matmul/pack_fp8.h"
#include "ops/matmul/panels.h"
#include "ops/matmul/weights_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

// A checkpoint's matrix: codes [N, K] and scales of blocks_n x blocks_k elements each.
struct StoredFp8 {
  StoredFp8(int64_t n, int64_t k, int64_t block_n, int64_t block_k, Random& random,
            bool subnormal = true)
      : codes(static_cast<size_t>(n * k)) {
    for (std::byte& c : codes) {
      auto code = static_cast<uint8_t>(random.below(256));
      if (!subnormal && (code & 0x78) == 0) code |= 0x28;
      c = std::byte{static_cast<uint8_t>((code & 0x7f) == 0x7f ? code - 1 : code)};
    }
    view.dtype = DType::kF8E4M3;
    view.data = codes.data();
    view.n = n;
    view.k = view.stride_n = k;
    if (block_n == 0) return;
    view.scale_block_n = block_n;
    view.scale_block_k = block_k;
    view.scale_cols = ceil_div(k, block_k);
    for (int64_t i = 0; i < ceil_div(n, block_n) * view.scale_cols; ++i)
      scales.push_back(static_cast<float>(1e-4 + 1e-3 * random.uniform()) *
                       (random.chance(0.2) ? -1.0f : 1.0f));
    if (subnormal && scales.size() > 1) scales[1] = 0;
    view.scale = scales.data();
  }
  std::vector<std::byte> codes;
  std::vector<float> scales;
  StoredMatrix view;
};

// Tensor, channel and tile scales, ragged at both edges; none at all.
constexpr int64_t kBlocks[][2] = {{0, 0}, {1 << 20, 1 << 20}, {1, 1 << 20}, {128, 128}, {1, 256}};

TEST(Fp8, CodesAsFoundStayAndProductsAreThoseOfTheWidenedWeights) {
  Random random(1);
  for (const auto& [block_n, block_k] : kBlocks)
    for (const int64_t k : {int64_t{31}, int64_t{128}, int64_t{300}}) {
      // Tiles with subnormals or scales of zero are expanded by another path, as are those of the
      // last panel's missing columns.
      const bool subnormal = random.chance(0.5);
      const int64_t n = 150, t = subnormal ? 7 : 18;
      const StoredFp8 stored(n, k, block_n, block_k, random, subnormal);
      ASSERT_TRUE(keeps_fp8_codes(stored.view));
      const Context context(Isa::kReference);
      const auto pack = [&](WeightFormat f) {
        return pack_matrix(*context.device, stored.view, f).value();
      };
      const PackedMatrix fp8 = pack(WeightFormat::kFP8), f32 = pack(WeightFormat::kF32),
                         narrow = pack(WeightFormat::kBF16);
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < k; ++j)
          ASSERT_EQ(packed_element(fp8, i, j), packed_element(f32, i, j)) << i << " " << j;
      Matrix x(t, k);
      x.fill(random);
      for (const Isa isa : isa_paths())
        for (const Arith arith : {Arith::kF32Fma, Arith::kBf16Tile}) {
          Matrix kept(t, n), widened(t, n);
          const Context here(isa);
          Scratch scratch(matmul_workspace_bytes(t, k));
          MatmulArgs args{.arith = arith, .x = x.view(), .w = &fp8, .out = kept.view()};
          ASSERT_TRUE(matmul(here.exec, args, scratch.workspace()).ok());
          args.w = arith == Arith::kF32Fma ? &f32 : &narrow;
          args.out = widened.view();
          ASSERT_TRUE(matmul(here.exec, args, scratch.workspace()).ok());
          EXPECT_TRUE(same_bits(kept.view(), widened.view())) << isa_name(isa) << " K = " << k;
        }
    }
}

TEST(Fp8, ChosenCodesAreTheNearestOfTheirScale) {
  Random random(2);
  const Context context(Isa::kReference);
  const test::StoredValues values(40, 300, random);
  const PackedMatrix w = pack_matrix(*context.device, values.view(), WeightFormat::kFP8).value();
  for (int64_t n = 0; n < 40; ++n)
    for (int64_t k0 = 0; k0 < 300; k0 += 128) {
      float amax = 0;
      for (int64_t k = k0; k < std::min<int64_t>(300, k0 + 128); ++k)
        amax = std::max(amax, std::fabs(values.values[static_cast<size_t>(n * 300 + k)]));
      for (int64_t k = k0; k < std::min<int64_t>(300, k0 + 128); ++k) {
        const double v = values.values[static_cast<size_t>(n * 300 + k)];
        // Half a unit of four bits, or half a step of the subnormals.
        ASSERT_LE(std::fabs(packed_element(w, n, k) - v),
                  std::max(std::fabs(v) * 0x1.001p-4, amax / 448.0 * 0x1.001p-10));
        if (std::fabs(v) == amax) {
          ASSERT_NEAR(packed_element(w, n, k), v, 0x1p-23 * amax);
        }
      }
    }
}

TEST(Fp8, UnpackedPanelsAreTheirElements) {
  Random random(3);
  const Context context(Isa::kReference);
  const PackedMatrix w =
      test::random_glu_panels(*context.device, WeightFormat::kFP8, 20, 130, random);
  std::vector<float> panel(130 * 16);
  for (int64_t p = 0; p < w.panels(); ++p) {
    unpack_panel(w, p, panel.data());
    for (int64_t c = 0; c < 16 && p / 2 * 16 + c < 20; ++c)
      for (int64_t k = 0; k < 130; ++k)
        ASSERT_EQ(panel[static_cast<size_t>(k * 16 + c)],
                  packed_element(w, p % 2 * 20 + p / 2 * 16 + c, k));
  }
}

TEST(Fp8, ScalesOfNarrowBlocksAreChosenAgain) {
  Random random(4);
  const StoredFp8 stored(16, 128, 1, 32, random);
  EXPECT_FALSE(keeps_fp8_codes(stored.view));
  const Context context(Isa::kReference);
  const PackedMatrix w = pack_matrix(*context.device, stored.view, WeightFormat::kFP8).value();
  const PackedMatrix f32 = pack_matrix(*context.device, stored.view, WeightFormat::kF32).value();
  for (int64_t n = 0; n < 16; ++n)
    for (int64_t k = 0; k < 128; ++k)
      ASSERT_NEAR(packed_element(w, n, k), packed_element(f32, n, k),
                  std::max(0x1.001p-4 * std::fabs(packed_element(f32, n, k)), 1.1e-3 * 0x1p-10));
}

TEST(Fp8, SaysWhatIsWrong) {
  Random random(5);
  const Context context(Isa::kReference);
  const auto failure = [&](auto change) {
    StoredFp8 stored(20, 256, 128, 128, random);
    change(stored);
    const auto w = pack_matrix(*context.device, stored.view, WeightFormat::kFP8);
    return w.ok() ? std::string() : w.status().message();
  };
  EXPECT_EQ(failure([](StoredFp8&) {}), "");
  EXPECT_EQ(failure([](StoredFp8& s) { s.scales[1] = 0; }), "");
  const std::pair<const char*, std::string> cases[] = {
      {"element (N, K) = (3, 7) is NaN",
       failure([](StoredFp8& s) { s.codes[3 * 256 + 7] = std::byte{0xff}; })},
      {"the scale of row N = 0, K = 128: expected",
       failure([](StoredFp8& s) { s.scales[1] = NAN; })},
      {"expected 0 or from 2^-100 to 2^100", failure([](StoredFp8& s) { s.scales[0] = 1e-37f; })},
      {"expected 0 or from 2^-100 to 2^100", failure([](StoredFp8& s) { s.scales[0] = 1e37f; })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
  for (const float bad : {NAN, INFINITY, 3e38f}) {
    test::StoredValues values(16, 64, random);
    values.values[70] = bad;
    EXPECT_FALSE(pack_matrix(*context.device, values.view(), WeightFormat::kFP8).ok()) << bad;
  }
}

}  // namespace
}  // namespace sluice
