// GGUF's formats chosen from f32: codes are nearest under the scales as they are stored, the search
// wins, and what cannot be stored is refused. (blocks_golden_test.cc compares with ggml.)
#include "ops/matmul/quantize_gguf.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/matmul/block_values.h"
#include "ops/matmul/weights_data.h"

namespace sluice {
namespace {

using test::Random;

constexpr WeightFormat kFormats[] = {
    WeightFormat::kQ5_0, WeightFormat::kQ5_1,   WeightFormat::kQ4_K, WeightFormat::kQ5_K,
    WeightFormat::kQ6_K, WeightFormat::kIQ4_NL, WeightFormat::kQ8_0, WeightFormat::kQ4_0};

// Column 0 of a panel of one column, [k] values of w.
PackedMatrix pack_column(const std::vector<float>& w, WeightFormat format, IntRounding rounding) {
  static const std::unique_ptr<Device> device = make_cpu_device();
  const StoredMatrix stored = stored_rows(w.data(), 1, std::ssize(w));
  return pack_matrix(*device, stored, format, {.rounding = rounding}).value();
}

double error_of(const std::vector<float>& w, const PackedMatrix& packed) {
  double error = 0;
  for (int64_t k = 0; k < packed.k; ++k) {
    const double d = static_cast<double>(packed_element(packed, 0, k)) -
                     static_cast<double>(w[static_cast<size_t>(k)]);
    error += d * d;
  }
  return error;
}

std::vector<float> random_column(Random& random, int64_t k) {
  std::vector<float> w(static_cast<size_t>(k));
  const double scale = std::exp2(static_cast<double>(random.between(-8, 8)));
  const int64_t kind = random.below(4);
  for (float& v : w) {
    const double z = random.normal();
    v = static_cast<float>(scale * (kind == 0   ? z
                                    : kind == 1 ? z * z * z          // heavy tails
                                    : kind == 2 ? random.uniform()   // one sign
                                                : -3.0 + 0.1 * z));  // far from 0
  }
  return w;
}

// No other code of a group comes nearer than the chosen one. q8_0 and q4_0 have a rule of their
// own.
TEST(QuantizeGguf, CodesAreTheNearestOfTheirScales) {
  Random random(11);
  for (const WeightFormat format : kFormats) {
    if (format == WeightFormat::kQ8_0 || format == WeightFormat::kQ4_0) continue;
    const BlockTraits t = block_traits(format);
    for (int round = 0; round < 60; ++round) {
      const int64_t k = random.between(1, 600);
      const std::vector<float> w = random_column(random, k);
      const auto rounding = round % 2 == 0 ? IntRounding::kSearch : IntRounding::kNearest;
      const PackedMatrix packed = pack_column(w, format, rounding);
      for (int64_t i = 0; i < k; ++i) {
        GroupColumn group = read_group(format, packed.data, k, packed.block, 0, i / 32);
        const double want = w[static_cast<size_t>(i)];
        const double found = std::fabs(static_cast<double>(group.weight(i % 32)) - want);
        for (int code = 0; code < 1 << t.bits; ++code) {
          group.value[i % 32] = (t.level.given ? t.level[code] : code) - t.zero;
          const double other = std::fabs(static_cast<double>(group.weight(i % 32)) - want);
          const double step = std::fabs(group.scale) * std::abs(group.multiplier[i % 32 / 16]);
          ASSERT_LE(found, other + 1e-4 * step + 1e-6 * std::fabs(want))
              << weight_format_name(format) << " K " << k << " at " << i << " code " << code;
        }
      }
    }
  }
}

TEST(QuantizeGguf, TheSearchWins) {
  Random random(12);
  for (const WeightFormat format : kFormats) {
    double nearest = 0, search = 0;
    for (int round = 0; round < 40; ++round) {
      std::vector<float> w(512);
      for (float& v : w) v = random.normal();
      nearest += error_of(w, pack_column(w, format, IntRounding::kNearest));
      search += error_of(w, pack_column(w, format, IntRounding::kSearch));
    }
    if (format == WeightFormat::kQ8_0 || format == WeightFormat::kQ4_0)
      EXPECT_EQ(search, nearest) << weight_format_name(format);
    else
      EXPECT_LT(search, 0.97 * nearest) << weight_format_name(format);
  }
}

TEST(QuantizeGguf, ExactWhereTheFormatHoldsTheWeights) {
  // Multiples of a power of two that reach the farther end of every format's levels.
  for (const WeightFormat format :
       {WeightFormat::kQ5_0, WeightFormat::kQ5_1, WeightFormat::kQ6_K}) {
    std::vector<float> w(256);
    const float low = format == WeightFormat::kQ6_K ? -32 : -16;
    for (size_t i = 0; i < w.size(); ++i)
      w[i] = 0.25f * (low + static_cast<float>(i % 16 == 0 ? 0 : i % 16 * 2 - 1));
    for (size_t i = 31; i < w.size(); i += 32) w[i] = 0.25f * (low + 31);
    EXPECT_EQ(error_of(w, pack_column(w, format, IntRounding::kNearest)), 0)
        << weight_format_name(format);
    EXPECT_EQ(error_of(w, pack_column(w, format, IntRounding::kSearch)), 0)
        << weight_format_name(format);
  }
}

TEST(QuantizeGguf, ZerosStayZerosAndTinyWeightsBecomeThem) {
  for (const WeightFormat format : kFormats)
    for (const float v : {0.0f, 1e-40f, -1e-33f, 1e-12f}) {
      const std::vector<float> w(300, v);
      const PackedMatrix packed = pack_column(w, format, IntRounding::kSearch);
      for (int64_t k = 0; k < packed.k; ++k)
        ASSERT_LE(std::fabs(packed_element(packed, 0, k)), 1e-7f) << weight_format_name(format);
    }
}

TEST(QuantizeGguf, RefusesWhatHalfPrecisionCannotHold) {
  static const std::unique_ptr<Device> device = make_cpu_device();
  for (const WeightFormat format : kFormats)
    for (const float v : {1e30f, -3e38f, NAN, -INFINITY}) {
      std::vector<float> w(64, 1.0f);
      w[5] = v;
      const Status status = pack_matrix(*device, stored_rows(w.data(), 1, 64), format).status();
      ASSERT_FALSE(status.ok()) << weight_format_name(format) << " " << v;
      const std::string_view word = std::isfinite(v) ? "overflows f16" : "element (N, K) = (0, 5)";
      EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
    }
}

}  // namespace
}  // namespace sluice
