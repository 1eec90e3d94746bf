// fp8 panels: codes as found and codes chosen, products equal to those of the widened weights bit
// for bit, or with rows in fp8 to those of quantize_rows and quant_matmul, what packing refuses.
#include <gtest/gtest.h>

#include "ops/matmul/matmul.h"
#include "ops/matmul/pack_fp8.h"
#include "ops/matmul/panels.h"
#include "ops/matmul/weights_data.h"
#include "ops/quant_matmul/quant_matmul.h"
#include "ops/quantize_rows/quantize_rows.h"

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

Status in_fp8(const Context& context, const PackedMatrix& w, ConstMatrixF32 x, Matrix& out) {
  Scratch scratch(matmul_workspace_bytes(x.rows, x.cols));
  return matmul(context.exec, {.arith = Arith::kFp8G128, .x = x, .w = &w, .out = out.view()},
                scratch.workspace());
}

TEST(Fp8Rows, GiveTheBitsOfQuantizeRowsAndQuantMatmul) {
  Random random(6);
  for (const auto& [block_n, block_k] : kBlocks)
    for (const int64_t k : {int64_t{31}, int64_t{128}, int64_t{300}}) {
      const int64_t n = 150, t = k == 300 && block_n == 128 ? 140 : 5;
      const StoredFp8 stored(n, k, block_n, block_k, random);
      const float one = 1;
      StoredQuant quant{QuantLayout::kFp8, stored.codes, stored.scales, n, k, 128};
      if (stored.scales.empty()) quant.scales = {&one, 1};
      quant.scale_block_n = block_n < n ? block_n : 0;
      quant.scale_block_k = block_k < k ? block_k : 0;
      Matrix x(t, k, 3);
      x.fill(random, true);
      for (const Isa isa : isa_paths()) {
        const Context context(isa, 2);
        const PackedMatrix kept =
            pack_matrix(*context.device, stored.view, WeightFormat::kFP8).value();
        const QuantWeights given = pack_quant_weights(*context.device, quant).value();
        const QuantWeights* const experts[] = {&given};
        std::vector<uint8_t> codes(static_cast<size_t>(t * k));
        std::vector<float> scales(static_cast<size_t>(t * ceil_div(k, 128)));
        QuantizeRowsArgs rows;
        rows.to = QuantizeTo::kE4m3;
        rows.scope = QuantizeScope::kGroup;
        rows.group = 128;
        rows.x = x.view();
        rows.scale_bound = 1e38f;
        rows.codes = {codes.data(), t, k, k};
        rows.scales = {scales.data(), ceil_div(k, 128), 1};
        ASSERT_TRUE(quantize_rows(context.exec, rows).ok());
        Matrix got(t, n), want(t, n);
        QuantMatmulArgs product;
        product.x = {reinterpret_cast<const int8_t*>(codes.data()), t, k, k};
        product.x_scale = {scales.data(), ceil_div(k, 128), 1};
        product.experts = experts;
        product.out = want.view();
        Scratch scratch(quant_matmul_workspace_bytes(t, 1, k, 128, QuantCodes::kFp8));
        const Status status = quant_matmul(context.exec, product, scratch.workspace());
        ASSERT_TRUE(status.ok()) << status.message();
        ASSERT_TRUE(in_fp8(context, kept, x.view(), got).ok());
        EXPECT_TRUE(same_bits(got.view(), want.view())) << isa_name(isa) << " K = " << k;
      }
    }
}

// tensor/arith.h again, from the stored codes and scales.
TEST(Fp8Rows, FollowTheWrittenOrder) {
  Random random(7);
  const int64_t k = 200;
  const StoredFp8 stored(1, k, 1, 128, random, false);
  const Context context(Isa::kReference);
  const PackedMatrix w = pack_matrix(*context.device, stored.view, WeightFormat::kFP8).value();
  Matrix x(1, k), out(1, 1);
  x.fill(random);
  x.at(0, 150) = 3000;  // no bound of 1200, as MAX has it
  ASSERT_TRUE(in_fp8(context, w, x.view(), out).ok());
  float acc = 0;
  for (int64_t k0 = 0; k0 < k; k0 += 128) {
    const int64_t end = std::min(k, k0 + 128);
    float amax = 0, sum = 0;
    for (int64_t i = k0; i < end; ++i) amax = std::max(amax, std::fabs(x.at(0, i)));
    const float scale = amax / 448.0f, factor = 1.0f / scale;
    for (int64_t step = k0; step < end; step += 32) {
      float part[2] = {0, 0};
      for (int64_t i = step; i < std::min(end, step + 32); ++i)
        part[i % 2] = std::fma(
            e4m3_to_f32(f32_to_e4m3(x.at(0, i) * factor)),
            e4m3_to_f32(static_cast<uint8_t>(stored.codes[static_cast<size_t>(i)])), part[i % 2]);
      sum += part[0] + part[1];
    }
    const float term = (sum * scale) * stored.scales[static_cast<size_t>(k0 / 128)];
    acc = k0 == 0 ? term : acc + term;
  }
  EXPECT_TRUE(same_bits(out.at(0, 0), acc)) << out.at(0, 0) << " " << acc;
}

TEST(Fp8Rows, WhatIsNotFiniteSpoilsItsRowOnly) {
  Random random(8);
  const StoredFp8 stored(20, 300, 128, 128, random, false);
  for (const Isa isa : isa_paths()) {
    const Context context(isa);
    const PackedMatrix w = pack_matrix(*context.device, stored.view, WeightFormat::kFP8).value();
    Matrix x(4, 300), out(4, 20), clean(4, 20);
    x.fill(random);
    ASSERT_TRUE(in_fp8(context, w, x.view(), clean).ok());
    x.at(1, 299) = -INFINITY, x.at(2, 3) = NAN;
    ASSERT_TRUE(in_fp8(context, w, x.view(), out).ok());
    for (int64_t n = 0; n < 20; ++n) {
      EXPECT_TRUE(same_bits(out.at(0, n), clean.at(0, n)));
      EXPECT_TRUE(std::isnan(out.at(1, n)) && std::isnan(out.at(2, n))) << isa_name(isa);
      EXPECT_TRUE(same_bits(out.at(3, n), clean.at(3, n)));
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
