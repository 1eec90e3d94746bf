// The quantisers of int4 and int8 weights: packing lands where packed_element reads, errors stay
// within half a step, the search beats plain Q4_0, and nothing depends on the pool.
#include "ops/matmul/quantize_int.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ops/matmul/pack.h"
#include "ops/matmul/weights_data.h"

namespace sluice {
namespace {

using test::Random;

// Gaussian by Box and Muller: the sum of uniforms that tests use otherwise has no tails.
float gaussian(Random& random) {
  const double r = std::sqrt(-2 * std::log(1 - random.uniform()));
  return static_cast<float>(r * std::cos(2 * 3.14159265358979323846 * random.uniform()));
}
// Student's t with 5 degrees of freedom.
float student(Random& random) {
  double chi = 0;
  for (int i = 0; i < 5; ++i) {
    const double g = gaussian(random);
    chi += g * g;
  }
  return static_cast<float>(gaussian(random) / std::sqrt(chi / 5));
}

double decibel(double signal, double noise) {
  return 10 * std::log10(signal / noise);
}

// Q4_0 as it is usually made: the largest magnitude of 32 becomes -8, the scale an f16.
float q4_0_error(const float* w) {
  float largest = 0;
  for (int i = 0; i < 32; ++i)
    if (std::fabs(w[i]) > std::fabs(largest)) largest = w[i];
  const float d = largest / -8;
  float error = 0;
  for (int i = 0; i < 32; ++i) {
    const int code = d == 0 ? 8 : std::min(15, static_cast<int>(w[i] / d + 8.5f));
    const float e = w[i] - static_cast<float>(code - 8) * d;
    error += e * e;
  }
  return error;
}

struct Ratios {
  double search, nearest, q4_0;
};
template <class Draw>
Ratios ratios(Draw draw, int64_t block) {
  constexpr int64_t kColumns = 200;
  Random random(11);
  double signal = 0, search = 0, nearest = 0, q4_0 = 0;
  for (int64_t c = 0; c < kColumns; ++c) {
    float w[512];
    for (int64_t i = 0; i < block; ++i) w[i] = draw(random), signal += w[i] * w[i];
    for (int64_t g = 0; g < block / 32; ++g) q4_0 += q4_0_error(w + 32 * g);
    for (const IntRounding rounding : {IntRounding::kSearch, IntRounding::kNearest}) {
      Int4Column column;
      quantize_int4(w, block / 32, rounding, &column);
      double& noise = rounding == IntRounding::kSearch ? search : nearest;
      for (int64_t i = 0; i < block; ++i) {
        const double v = double{column.scale} * column.multiplier[i / 32] *
                         (column.code[i] - column.zero[i / 32]);
        noise += (w[i] - v) * (w[i] - v);
      }
    }
  }
  return {decibel(signal, search), decibel(signal, nearest), decibel(signal, q4_0)};
}

TEST(QuantizeInt4, TheSearchIsMoreAccurateThanQ40) {
  const Ratios gauss = ratios(gaussian, 512);
  EXPECT_GE(gauss.search, 21.5);
  EXPECT_GT(gauss.search, gauss.q4_0 + 0.2);
  EXPECT_GT(gauss.search, gauss.nearest);
  const Ratios tails = ratios(student, 512);
  EXPECT_GT(tails.search, tails.q4_0 + 0.05);
  for (const auto& [name, r] : {std::pair{"gaussian", gauss}, {"student_t5", tails}})
    RecordProperty(name, std::to_string(r.search) + " " + std::to_string(r.nearest) + " " +
                             std::to_string(r.q4_0));
  EXPECT_GT(ratios(gaussian, 128).search, 21.5);
}

TEST(QuantizeInt4, StaysWithinItsRanges) {
  Random random(12);
  for (int i = 0; i < 300; ++i) {
    float w[512] = {};
    const int64_t groups = random.between(1, 16);
    const double size = std::exp(random.between(-40, 40));
    for (int64_t k = 0; k < groups * 32; ++k)
      w[k] = random.chance(0.1) ? 0.0f : static_cast<float>(size * random.normal());
    if (random.chance(0.2)) std::fill(w, w + 32, 0.0f);
    for (const IntRounding rounding : {IntRounding::kSearch, IntRounding::kNearest}) {
      Int4Column column;
      quantize_int4(w, groups, rounding, &column);
      ASSERT_EQ(column.scale, round_to_bf16(column.scale));
      for (int64_t k = 0; k < groups * 32; ++k) {
        const int64_t g = k / 32;
        ASSERT_LE(column.multiplier[g], 15);
        ASSERT_LE(column.code[k], 15);
        ASSERT_TRUE(column.zero[g] == 7 || column.zero[g] == 8);
        const float step = column.scale * column.multiplier[g];
        const float v = step * static_cast<float>(column.code[k] - column.zero[g]);
        if (w[k] == 0) {
          ASSERT_EQ(v, 0.0f);
        }
        // Nearest clips nothing on the side of the largest weight, half a step and one on the
        // other.
        if (rounding == IntRounding::kNearest) {
          ASSERT_LE(std::fabs(w[k] - v), 1.01f * step) << column.scale << " " << w[k];
        }
      }
    }
  }
}

TEST(QuantizeInt8, IsNearestToItsScale) {
  Random random(13);
  float w[512], largest = 0;
  for (float& v : w) v = random.normal(), largest = std::max(largest, std::fabs(v));
  Int8Column column;
  quantize_int8(w, 16, &column);
  EXPECT_EQ(column.scale, largest / 127);
  int most = 0;
  for (int i = 0; i < 512; ++i) {
    most = std::max(most, std::abs(column.code[i]));
    EXPECT_LE(std::fabs(w[i] - column.scale * static_cast<float>(column.code[i])),
              0.5001f * column.scale);
  }
  EXPECT_EQ(most, 127);
  std::fill(w, w + 512, 0.0f);
  quantize_int8(w, 16, &column);
  EXPECT_EQ(column.scale, 0.0f);
}

// packed_element gives what the column's quantiser chose, for ragged shapes and every block.
TEST(PackInt, EveryElement) {
  const auto device = make_cpu_device();
  Random random(14);
  for (const auto& [n, k] : {std::pair{1, 1}, {17, 33}, {16, 512}, {20, 700}, {3, 1100}})
    for (const int64_t block : {128, 256, 512}) {
      const test::StoredValues stored(n, k, random);
      const IntPacking how{block, IntRounding::kNearest};
      const PackedMatrix four =
          pack_matrix(*device, stored.view(), WeightFormat::kInt4, how).value();
      const PackedMatrix eight =
          pack_matrix(*device, stored.view(), WeightFormat::kInt8, how).value();
      ASSERT_EQ(four.block, block);
      ASSERT_EQ(four.bytes, packed_bytes(four.format, four.layout, n, k, block));
      for (int64_t row = 0; row < n; ++row)
        for (int64_t k0 = 0; k0 < k; k0 += block) {
          float w[512] = {};
          const int64_t count = std::min(k - k0, block);
          for (int64_t i = 0; i < count; ++i)
            w[i] = stored.values[static_cast<size_t>(row * k + k0 + i)];
          Int4Column column4;
          Int8Column column8;
          quantize_int4(w, ceil_div(count, 32), how.rounding, &column4);
          quantize_int8(w, ceil_div(count, 32), &column8);
          for (int64_t i = 0; i < count; ++i) {
            const int integer = column4.multiplier[i / 32] *
                                (static_cast<int>(column4.code[i]) - column4.zero[i / 32]);
            ASSERT_EQ(packed_element(four, row, k0 + i),
                      column4.scale * static_cast<float>(integer));
            ASSERT_EQ(packed_element(eight, row, k0 + i),
                      column8.scale * static_cast<float>(column8.code[i]));
          }
        }
    }
}

TEST(PackInt, TakesFewBits) {
  const auto bits = [](WeightFormat format, int64_t k) {
    return 8.0 * static_cast<double>(panel_bytes(format, k)) / (16.0 * static_cast<double>(k));
  };
  EXPECT_EQ(bits(WeightFormat::kInt4, 2048), 4.1875);
  EXPECT_EQ(bits(WeightFormat::kInt8, 2048), 8.0625);
  EXPECT_LE(bits(WeightFormat::kInt4, 2816), 4.2);
  EXPECT_EQ(panel_bytes(WeightFormat::kInt4, 33) % 64, 0u);
}

TEST(PackInt, DoesNotDependOnThePool) {
  const auto device = make_cpu_device();
  Random random(15);
  ThreadPool pool(3);
  const test::StoredValues gate(50, 300, random), up(50, 300, random);
  for (const WeightFormat format : {WeightFormat::kInt4, WeightFormat::kInt8}) {
    IntPacking alone, pooled;
    pooled.pool = &pool;
    const PackedMatrix a = pack_glu(*device, gate.view(), up.view(), format, alone).value();
    const PackedMatrix b = pack_glu(*device, gate.view(), up.view(), format, pooled).value();
    ASSERT_EQ(a.bytes, b.bytes);
    EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes), 0);
    const PackedMatrix plain = pack_matrix(*device, up.view(), format, pooled).value();
    for (int64_t k = 0; k < 300; ++k)
      ASSERT_EQ(packed_element(a, 50 + 37, k), packed_element(plain, 37, k));
  }
  EXPECT_GT(pool.parallel_loops(), 0);
}

TEST(PackInt, RefusesWhatItCannotQuantise) {
  const auto device = make_cpu_device();
  Random random(16);
  test::StoredValues w(20, 100, random);
  const auto message = [&](const IntPacking& how) {
    const Status s = pack_matrix(*device, w.view(), WeightFormat::kInt4, how).status();
    return s.ok() ? std::string() : s.message();
  };
  EXPECT_EQ(message({}), "");
  EXPECT_NE(message({64}).find("block: expected 128, 256 or 512, got 64"), std::string::npos);
  w.values[1799] = NAN;
  EXPECT_NE(message({}).find("(N, K) = (17, 99) is nan"), std::string::npos) << message({});
  ThreadPool pool(2);
  EXPECT_EQ(message({512, IntRounding::kNearest, &pool}), message({}));
}

}  // namespace
}  // namespace sluice
