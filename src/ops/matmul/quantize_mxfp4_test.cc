// MXFP4 codes: the published rule by a table, no code better than the chosen one, and panels that
// read back as what was chosen.
#include "ops/matmul/quantize_mxfp4.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/fp.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/weights_data.h"

namespace sluice {
namespace {

using test::Random;

double error_of(const float* w, const Mxfp4Block& b) {
  double error = 0;
  for (int i = 0; i < 32; ++i) {
    const double d = static_cast<double>(e2m1_to_f32(b.code[i])) * std::ldexp(1.0, b.scale - 127) -
                     static_cast<double>(w[i]);
    error += d * d;
  }
  return error;
}

TEST(QuantizeMxfp4, RoundsToNearestAndTiesToEven) {
  // The largest is 6: the plain scale is 1.
  const float in[] = {6, 0.25f, 0.26f, 0.75f, 1.25f, 1.75f, 2.5f,   3.5f,
                      5, 5.01f, -0.5f, -5,    -0.2f, 0.5f,  -1.25f, 2};
  const float want[] = {6, 0, 0.5f, 1, 1, 2, 2, 4, 4, 6, -0.5f, -4, 0, 0.5f, -1, 2};
  float w[32] = {};
  std::copy(std::begin(in), std::end(in), w);
  const Mxfp4Block b = quantize_mxfp4(w, false);
  EXPECT_EQ(b.scale, 127);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(e2m1_to_f32(b.code[i]), want[i]) << in[i];
  for (int i = 0; i < 32; ++i) EXPECT_NE(b.code[i], 8) << "-0";
}

TEST(QuantizeMxfp4, PlainScaleFollowsTheLargest) {
  for (int e = -100; e <= 100; e += 10) {
    for (const float f : {1.0f, 1.5f, 1.99f}) {
      float w[32] = {std::ldexp(f, e)};
      EXPECT_EQ(quantize_mxfp4(w, false).scale, 127 + e - 2) << f << " " << e;
    }
  }
  const float zeros[32] = {};
  EXPECT_EQ(error_of(zeros, quantize_mxfp4(zeros, true)), 0);
  const float largest = std::numeric_limits<float>::max(), least = 1e-45f;
  for (const float v : {largest, least, -largest}) {
    float w[32] = {v};
    EXPECT_LE(quantize_mxfp4(w, true).scale, 254) << v;
  }
}

TEST(QuantizeMxfp4, TheSearchNeverLosesAndOftenWins) {
  Random random(3);
  int won = 0;
  for (int round = 0; round < 1000; ++round) {
    float w[32];
    for (float& v : w) v = random.normal();
    const double plain = error_of(w, quantize_mxfp4(w, false));
    const double found = error_of(w, quantize_mxfp4(w, true));
    ASSERT_LE(found, plain);
    won += found < plain ? 1 : 0;
  }
  EXPECT_GT(won, 50);
}

TEST(QuantizeMxfp4, NoCodeIsNearer) {
  Random random(4);
  for (int round = 0; round < 200; ++round) {
    float w[32];
    for (float& v : w) v = random.normal();
    const Mxfp4Block b = quantize_mxfp4(w, true);
    const double scale = std::ldexp(1.0, b.scale - 127);
    for (int i = 0; i < 32; ++i)
      for (uint8_t code = 0; code < 16; ++code)
        ASSERT_LE(std::fabs(e2m1_to_f32(b.code[i]) * scale - w[i]),
                  std::fabs(e2m1_to_f32(code) * scale - w[i]));
  }
}

TEST(QuantizeMxfp4, PanelsReadBackAndBadInputIsRefused) {
  Random random(5);
  const auto device = make_cpu_device();
  std::vector<float> values(42 * 96);
  for (float& v : values) v = random.normal();
  const StoredMatrix all = stored_rows(values.data(), 42, 96);
  StoredMatrix gate = all, up = all;  // every other row, as gpt-oss has them
  gate.n = up.n = 21;
  gate.stride_n = up.stride_n = 192;
  up.data += 96 * sizeof(float);
  for (const bool search : {false, true}) {
    const IntPacking how{.rounding = search ? IntRounding::kSearch : IntRounding::kNearest};
    const PackedMatrix plain = pack_matrix(*device, all, WeightFormat::kMXFP4, how).value();
    const PackedMatrix glu = pack_glu(*device, gate, up, WeightFormat::kMXFP4, how).value();
    for (int64_t n = 0; n < 42; ++n) {
      for (int64_t k0 = 0; k0 < 96; k0 += 32) {
        const Mxfp4Block b = quantize_mxfp4(&values[static_cast<size_t>(n * 96 + k0)], search);
        for (int64_t i = 0; i < 32; ++i) {
          const float want = e2m1_to_f32(b.code[i]) * std::ldexp(1.0f, b.scale - 127);
          ASSERT_EQ(packed_element(plain, n, k0 + i), want);
          ASSERT_EQ(packed_element(glu, n / 2 + n % 2 * 21, k0 + i), want);
        }
      }
    }
  }
  StoredMatrix ragged = all;
  ragged.k = 90;
  const Status refused = pack_matrix(*device, ragged, WeightFormat::kMXFP4).status();
  EXPECT_EQ(refused.message(), "pack: w: mxfp4: K: expected a multiple of 32, got 90");
  values[5 * 96 + 40] = std::numeric_limits<float>::quiet_NaN();
  const Status nan = pack_matrix(*device, all, WeightFormat::kMXFP4).status();
  EXPECT_EQ(nan.code(), StatusCode::kDataLoss);
  EXPECT_EQ(nan.message(), "pack: mxfp4: element (N, K) = (5, 40) is nan");
}

}  // namespace
}  // namespace sluice
