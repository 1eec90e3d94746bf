// quantize_rows: every kernel row against the reference bit for bit, the rules against f64 and by
// hand, invariance, errors.
#include "ops/quantize_rows/quantize_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/quantize_rows/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Random;
using test::same_bits;

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Problem {
  QuantizeTo to = QuantizeTo::kInt8;
  QuantizeScope scope = QuantizeScope::kRow;
  int64_t t = 5, d = 64, group = 0, pad = 0;
  std::vector<int32_t> counts;
  ScaleType type = ScaleType::kF32;
  bool narrow = false, smooth = false, rough = false;
};

// One call with guards around its codes and scales.
struct Call {
  Call(const Problem& problem, uint64_t seed) : p(problem) {
    Random random(seed);
    stride = p.d + p.pad;
    groups = p.scope == QuantizeScope::kGroup ? ceil_div(p.d, p.group) : 1;
    for (int64_t i = 0; i < p.t * stride + 1; ++i) {
      x.push_back(p.rough ? random.rough() : random.normal());
      half.push_back(bf16(x.back()));
    }
    for (size_t i = 0; i < std::max<size_t>(1, p.counts.size()) * static_cast<size_t>(p.d); ++i)
      smooth.push_back(static_cast<float>(0.5 + random.uniform()));
    codes.assign(static_cast<size_t>(p.t * stride + 1), 0xa5);
    scales.assign(static_cast<size_t>(p.t * groups + 1), -7.0f);
    args.to = p.to;
    args.scope = p.scope;
    args.group = p.group;
    if (p.narrow)
      args.x_bf16 = {half.data() + 1, p.t, p.d, stride};
    else
      args.x = {x.data() + 1, p.t, p.d, stride};
    if (p.smooth || !p.counts.empty()) args.inv_smooth = smooth.data();
    args.counts = p.counts;
    args.scale_type = p.type;
    args.codes = {codes.data() + 1, p.t, p.d, stride};
    // Group-major, as MAX writes them.
    args.scales = {scales.data(), 1, p.t};
  }
  Call& run(const Context& context) {
    const Status s = quantize_rows(context.exec, args);
    EXPECT_TRUE(s.ok()) << s.message();
    EXPECT_EQ(codes[0], 0xa5);
    for (int64_t r = 0; r < p.t; ++r)
      for (int64_t i = p.d; i < stride && r + 1 < p.t; ++i)
        EXPECT_EQ(codes[static_cast<size_t>(1 + r * stride + i)], 0xa5);
    EXPECT_EQ(scales.back(), -7.0f);
    return *this;
  }
  float scale(int64_t row, int64_t g) const { return scales[static_cast<size_t>(g * p.t + row)]; }
  float& at(int64_t row, int64_t i) { return x[static_cast<size_t>(1 + row * stride + i)]; }
  uint8_t code(int64_t row, int64_t i) const {
    return codes[static_cast<size_t>(1 + row * stride + i)];
  }

  Problem p;
  int64_t stride = 0, groups = 0;
  std::vector<float> x, smooth, scales;
  std::vector<bf16> half;
  std::vector<uint8_t> codes;
  QuantizeRowsArgs args;
};

::testing::AssertionResult same(const Call& a, const Call& b) {
  if (a.codes != b.codes) return ::testing::AssertionFailure() << "codes";
  for (size_t i = 0; i < a.scales.size(); ++i)
    if (!same_bits(a.scales[i], b.scales[i]))
      return ::testing::AssertionFailure()
             << "scale " << i << ": " << a.scales[i] << " and " << b.scales[i];
  return ::testing::AssertionSuccess();
}

Problem random_problem(Random& random) {
  Problem p;
  p.to = random.chance(0.5) ? QuantizeTo::kInt8 : QuantizeTo::kE4m3;
  p.scope = static_cast<QuantizeScope>(random.below(3));
  p.t = random.between(1, 9);
  p.d = random.between(1, 150);
  p.group = random.between(1, p.d + 20);
  p.pad = random.below(3);
  p.narrow = random.chance(0.5);
  p.smooth = random.chance(0.5);
  p.rough = random.chance(0.5);
  if (p.to == QuantizeTo::kE4m3) p.type = static_cast<ScaleType>(random.below(4));
  if (random.chance(0.3)) {
    p.counts.assign(static_cast<size_t>(random.between(1, 4)), 0);
    for (int64_t i = 0; i < p.t; ++i)
      ++p.counts[static_cast<size_t>(random.below(static_cast<int64_t>(p.counts.size())))];
  }
  return p;
}

using Row = Kernel<QuantizeRowsKernel>;
class QuantizeRowsRow : public ::testing::TestWithParam<Row> {};

TEST_P(QuantizeRowsRow, EqualsTheReferenceBitForBit) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context reference(Isa::kReference), row(GetParam().isa, 2);
  Random random(11);
  for (int64_t i = 0; i < test::property_runs(2000); ++i) {
    Problem p = random_problem(random);
    p.narrow = GetParam().in == "bf16";
    Call want(p, static_cast<uint64_t>(i)), got(p, static_cast<uint64_t>(i));
    for (Call* c : {&want, &got}) {
      if (i % 7 == 3)
        c->at(0, p.d / 2) = NAN, c->half[static_cast<size_t>(1 + p.d / 2)] = bf16(NAN);
      if (i % 7 == 5) c->at(0, 0) = -kInf, c->half[1] = bf16(-kInf);
    }
    want.run(reference);
    got.run(row);
    ASSERT_TRUE(same(got, want)) << "run " << i << ", D = " << p.d << ", group " << p.group;
  }
}

TEST_P(QuantizeRowsRow, RoundsEveryMagnitudeAsTheReference) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  // The steps and half steps of every code, and their neighbours.
  Problem p{QuantizeTo::kE4m3, QuantizeScope::kRow, 1, 127 * 6};
  p.narrow = GetParam().in == "bf16";
  Call want(p, 1), got(p, 1);
  for (Call* c : {&want, &got})
    for (int64_t code = 0; code < 127; ++code) {
      const float low = e4m3_to_f32(static_cast<uint8_t>(code));
      const float high = code < 126 ? e4m3_to_f32(static_cast<uint8_t>(code + 1)) : 448.0f;
      const float middle = low + (high - low) / 2;
      const float all[] = {
          low, -low, middle, -middle, std::nextafter(middle, 0.0f), std::nextafter(middle, high)};
      for (int64_t i = 0; i < 6; ++i) {
        c->at(0, code * 6 + i) = all[i];
        c->half[static_cast<size_t>(1 + code * 6 + i)] = bf16(all[i]);
      }
    }
  want.run(Context(Isa::kReference));
  got.run(Context(GetParam().isa));
  EXPECT_EQ(want.scale(0, 0), 1.0f);
  EXPECT_TRUE(same(got, want));
}

TEST_P(QuantizeRowsRow, RowsDoNotDependOnBatchOrWorkers) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  for (const QuantizeTo to : {QuantizeTo::kInt8, QuantizeTo::kE4m3}) {
    Problem p{to, QuantizeScope::kGroup, 700, 96, 40};
    p.counts = {0, 300, 0, 399, 1};
    p.narrow = GetParam().in == "bf16";
    Call all(p, 3);
    all.run(Context(GetParam().isa));
    for (const int threads : {1, 2, 3})
      EXPECT_TRUE(same(Call(p, 3).run(Context(GetParam().isa, threads)), all));
    Call one(p, 3);
    const std::vector<int32_t> count = {1};
    one.args.counts = count;
    one.args.inv_smooth = one.smooth.data() + 3 * 96;
    if (p.narrow)
      one.args.x_bf16 = {one.half.data() + 1 + 450 * 96, 1, 96};
    else
      one.args.x = {one.x.data() + 1 + 450 * 96, 1, 96};
    one.args.codes = {one.codes.data() + 1, 1, 96};
    one.args.scales = {one.scales.data(), 1, 1};
    ASSERT_TRUE(quantize_rows(Context(GetParam().isa).exec, one.args).ok());
    for (int64_t i = 0; i < 96; ++i) EXPECT_EQ(one.code(0, i), all.code(450, i));
    for (int64_t g = 0; g < 3; ++g)
      EXPECT_EQ(one.scales[static_cast<size_t>(g)], all.scale(450, g));
  }
  Problem p{QuantizeTo::kE4m3, QuantizeScope::kTensor, 700, 96};
  p.narrow = GetParam().in == "bf16";
  Call all(p, 4);
  all.run(Context(GetParam().isa));
  for (const int threads : {1, 2, 3})
    EXPECT_TRUE(same(Call(p, 4).run(Context(GetParam().isa, threads)), all));
}

INSTANTIATE_TEST_SUITE_P(Kernels, QuantizeRowsRow,
                         ::testing::ValuesIn(test::all_rows(quantize_rows_kernels())),
                         test::RowName());

TEST(QuantizeRows, CodesAreTheNearestOfTheirScale) {
  for (const QuantizeTo to : {QuantizeTo::kInt8, QuantizeTo::kE4m3}) {
    Problem p{to, QuantizeScope::kGroup, 40, 130, 50};
    Call c(p, 5);
    c.run(Context(Isa::kReference));
    for (int64_t r = 0; r < p.t; ++r)
      for (int64_t i = 0; i < p.d; ++i) {
        const double scale = c.scale(r, i / 50), y = c.at(r, i);
        ASSERT_GT(scale, 0);
        if (to == QuantizeTo::kInt8) {
          ASSERT_LE(std::fabs(y - scale * static_cast<int8_t>(c.code(r, i))), 0.5001 * scale);
        } else {
          // Three bits of mantissa, or half a step of 2^-9.
          const double value = scale * double{e4m3_to_f32(c.code(r, i))};
          ASSERT_LE(std::fabs(y - value), std::max(std::fabs(y) * 0x1.001p-4, scale * 0x1.001p-10));
        }
      }
  }
}

// codes and scale of one row
struct Small {
  std::vector<int> codes;
  float scale;
};
Small quantized(std::vector<float> x, QuantizeTo to, ScaleType type = ScaleType::kF32,
                float bound = 1200.0f) {
  std::vector<uint8_t> codes(x.size());
  float scale = -1;
  QuantizeRowsArgs args;
  args.to = to;
  args.scale_type = type;
  args.scale_bound = bound;
  args.x = {x.data(), 1, static_cast<int64_t>(x.size())};
  args.codes = {codes.data(), 1, args.x.cols};
  args.scales.data = &scale;
  EXPECT_TRUE(quantize_rows(Context(Isa::kReference).exec, args).ok());
  Small out{{}, scale};
  for (const uint8_t c : codes)
    out.codes.push_back(to == QuantizeTo::kInt8 ? static_cast<int8_t>(c) : c);
  return out;
}

TEST(QuantizeRows, Int8RuleByHand) {
  const Small halves =
      quantized({127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -127.0f}, QuantizeTo::kInt8);
  EXPECT_EQ(halves.scale, 1.0f);
  EXPECT_EQ(halves.codes, (std::vector<int>{127, 0, 2, 2, 0, -2, -127}));
  // amax below 1.27e-4: scale 1, all zeros.
  const Small tiny = quantized({1.2e-4f, -1e-5f}, QuantizeTo::kInt8);
  EXPECT_EQ(tiny.scale, 1.0f);
  EXPECT_EQ(tiny.codes, (std::vector<int>{0, 0}));
  const Small small = quantized({1.28e-4f, 0.32e-4f}, QuantizeTo::kInt8);
  EXPECT_EQ(small.scale, 1.28e-4f / 127.0f);
  EXPECT_EQ(small.codes, (std::vector<int>{127, 32}));
  EXPECT_EQ(quantized({0.0f, 0.0f}, QuantizeTo::kInt8).scale, 1.0f);
  for (const float bad : {NAN, kInf, -kInf}) {
    const Small poisoned = quantized({1.0f, bad}, QuantizeTo::kInt8);
    EXPECT_TRUE(std::isnan(poisoned.scale));
    EXPECT_EQ(poisoned.codes, (std::vector<int>{0, 0}));
  }
}

TEST(QuantizeRows, E4m3RuleByHand) {
  const Small plain = quantized({448.0f, 1.0f, -2.0f}, QuantizeTo::kE4m3);
  EXPECT_EQ(plain.scale, 1.0f);
  EXPECT_EQ(plain.codes, (std::vector<int>{0x7e, 0x38, 0xc0}));
  // Bounded: what lies beyond saturates.
  const Small bounded = quantized({4480.0f, 1200.0f, -kInf}, QuantizeTo::kE4m3);
  EXPECT_EQ(bounded.scale, 1200.0f / 448.0f);
  EXPECT_EQ(bounded.codes, (std::vector<int>{0x7e, 0x7e, 0xfe}));
  const Small zeros = quantized({0.0f, 1e-38f, -1e-38f}, QuantizeTo::kE4m3);
  EXPECT_EQ(zeros.scale, 0.0f);
  EXPECT_EQ(zeros.codes[0], 0);
  EXPECT_EQ(zeros.codes[1] & 0x7f, 0);
  EXPECT_EQ(zeros.codes[2] & 0x7f, 0);
  const Small poisoned = quantized({1.0f, NAN}, QuantizeTo::kE4m3);
  EXPECT_TRUE(std::isnan(poisoned.scale));
  EXPECT_EQ(poisoned.codes, (std::vector<int>{0x7f, 0x7f}));
}

TEST(QuantizeRows, E4m3ScalesOfEveryType) {
  const auto scale = [](ScaleType type, float amax) {
    return quantized({amax, 0.25f * amax}, QuantizeTo::kE4m3, type).scale;
  };
  EXPECT_EQ(scale(ScaleType::kF32, 3.0f), 3.0f / 448.0f);
  EXPECT_EQ(scale(ScaleType::kBF16, 3.0f), round_to_bf16(3.0f / 448.0f));
  EXPECT_EQ(scale(ScaleType::kBF16, 3.01f), round_to_bf16(round_to_bf16(3.01f) / 448.0f));
  EXPECT_EQ(scale(ScaleType::kF16, 3.01f),
            f16_to_f32(f32_to_f16(f16_to_f32(f32_to_f16(3.01f)) / 448.0f)));
  EXPECT_EQ(scale(ScaleType::kE8M0, 448.0f), 1.0f);
  EXPECT_EQ(scale(ScaleType::kE8M0, 449.0f), 2.0f);
  EXPECT_EQ(scale(ScaleType::kE8M0, 223.0f), 0.5f);
  EXPECT_EQ(scale(ScaleType::kE8M0, 0.0f), 0x1p-33f);  // the power above 1e-10
}

TEST(QuantizeRows, SaysWhatIsWrong) {
  const auto failure = [](auto change) {
    Problem p{QuantizeTo::kE4m3, QuantizeScope::kGroup, 4, 8, 4};
    p.counts = {1, 3};
    Call call(p, 1);
    change(call.args);
    const Status s = quantize_rows(Context(Isa::kReference).exec, call.args);
    return s.ok() ? std::string() : s.message();
  };
  using Args = QuantizeRowsArgs;
  EXPECT_EQ(failure([](Args&) {}), "");
  static const int32_t negative[] = {5, -1}, many[] = {1, 4};
  const std::pair<const char*, std::string> cases[] = {
      {"x: expected one of f32 and bf16", failure([](Args& a) {
         a.x_bf16 = {reinterpret_cast<const bf16*>(a.x.data), 4, 8};
       })},
      {"D: expected >= 1", failure([](Args& a) { a.x.cols = 0; })},
      {"x: row stride", failure([](Args& a) { a.x.stride = 4; })},
      {"group: expected >= 1, got 0", failure([](Args& a) { a.group = 0; })},
      {"codes: expected [T, D] = [4, 8], got [4, 7]", failure([](Args& a) { a.codes.cols = 7; })},
      {"codes: expected", failure([](Args& a) { a.codes.data = nullptr; })},
      {"scales: is missing", failure([](Args& a) { a.scales.data = nullptr; })},
      {"scale_bound", failure([](Args& a) { a.scale_bound = 0; })},
      {"scale_bound", failure([](Args& a) { a.scale_bound = kInf; })},
      {"scale_bound", failure([](Args& a) { a.scale_bound = NAN; })},
      {"scale_type", failure([](Args& a) {
         a.to = QuantizeTo::kInt8;
         a.scale_type = ScaleType::kBF16;
       })},
      {"counts[1]: expected >= 0, got -1", failure([](Args& a) { a.counts = negative; })},
      {"counts: expected a sum of T = 4, got 5", failure([](Args& a) { a.counts = many; })},
      {"counts: expected inv_smooth", failure([](Args& a) { a.inv_smooth = nullptr; })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
}

}  // namespace
}  // namespace sluice
