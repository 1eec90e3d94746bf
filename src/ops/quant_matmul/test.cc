// quant_matmul: packing and repacking, every kernel row against the reference bit for bit and
// against sums of 64-bit integers, invariance, errors.
#include "ops/quant_matmul/quant_matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "base/float_env.h"
#include "ops/quant_matmul/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

constexpr QuantLayout kLayouts[] = {QuantLayout::kInt8, QuantLayout::kInt4RowPairs,
                                    QuantLayout::kInt4KPairs, QuantLayout::kFp8};

// Weights as stored, full range: all bytes are codes in every layout, but fp8's two NaNs.
struct Stored {
  Stored(QuantLayout layout, int64_t n, int64_t k, int64_t group, Random& random,
         int64_t block_n = 1, int64_t block_k = 0) {
    const bool fp8 = layout == QuantLayout::kFp8;
    codes.resize(static_cast<size_t>(layout == QuantLayout::kInt8 || fp8 ? n * k : n * k / 2));
    for (std::byte& b : codes) b = static_cast<std::byte>(random.below(256));
    for (std::byte& b : codes)
      if (fp8 && (b & std::byte{0x7f}) == std::byte{0x7f}) b = b & std::byte{0x80};
    const int64_t size = fp8 ? block_k : group;
    const int64_t rows = !fp8 ? n : block_n == 0 ? 1 : ceil_div(n, block_n);
    const int64_t groups = size == 0 ? 1 : ceil_div(k, size);
    for (int64_t i = 0; i < rows * groups; ++i)
      scales.push_back(round_to_bf16(static_cast<float>(0.001 + random.uniform())) *
                       (random.chance(0.1) ? -1.0f : 1.0f));
    view = {layout, codes, scales, n, k, group, block_n, block_k};
  }
  std::vector<std::byte> codes;
  std::vector<float> scales;
  StoredQuant view;
};

QuantWeights packed(const StoredQuant& stored) {
  static const std::unique_ptr<Device> device = make_cpu_device();
  Result<QuantWeights> w = pack_quant_weights(*device, stored);
  EXPECT_TRUE(w.ok()) << w.status().message();
  return w.ok() ? std::move(w).value() : QuantWeights{};
}

struct Problem {
  QuantLayout layout = QuantLayout::kInt8;
  std::vector<int32_t> counts = {3};
  int64_t n = 16, k = 64, group = 0;
  RoundTo round = RoundTo::kF32;
  int64_t block_n = 1, block_k = 0;             // fp8's scales of the weights
  enum { kRow, kGroup, kTensor } scope = kRow;  // of x_scale
};

struct Call {
  Call(const Problem& problem, uint64_t seed) : p(problem) {
    Random random(seed);
    for (const int32_t c : p.counts) t += c;
    for (size_t e = 0; e < p.counts.size(); ++e) {
      stored.push_back(
          std::make_unique<Stored>(p.layout, p.n, p.k, p.group, random, p.block_n, p.block_k));
      weights.push_back(packed(stored.back()->view));
    }
    for (const QuantWeights& w : weights) experts.push_back(&w);
    stride = p.k + 3;
    for (int64_t i = 0; i < t * stride + 1; ++i)
      x.push_back(static_cast<int8_t>(random.chance(0.2) ? -128 : random.below(256) - 128));
    if (p.layout == QuantLayout::kFp8)
      for (int8_t& c : x)
        if ((c & 0x7f) == 0x7f) c = 0;
    const int64_t groups = p.group == 0 ? 1 : ceil_div(p.k, p.group);
    for (int64_t i = 0; i < t * groups; ++i) scales.push_back(static_cast<float>(random.uniform()));
    out = std::make_unique<Matrix>(t, p.n, 2, 1);
    args.x = {x.data() + 1, t, p.k, stride};
    args.x_scale = p.scope == Problem::kRow     ? RowScales{scales.data()}
                   : p.scope == Problem::kGroup ? RowScales{scales.data(), groups, 1}
                                                : RowScales{scales.data(), 0, 0};
    args.counts = p.counts;
    args.experts = experts;
    args.round = p.round;
    args.out = out->view();
  }
  Call& run(const Context& context) {
    Scratch scratch(quant_matmul_workspace_bytes(t, static_cast<int64_t>(experts.size()), p.k,
                                                 p.group, weights[0].codes));
    const Status s = quant_matmul(context.exec, args, scratch.workspace());
    EXPECT_TRUE(s.ok()) << s.message();
    EXPECT_TRUE(out->guards_hold());
    return *this;
  }
  Problem p;
  int64_t t = 0, stride = 0;
  std::vector<std::unique_ptr<Stored>> stored;
  std::vector<QuantWeights> weights;
  std::vector<const QuantWeights*> experts;
  std::vector<int8_t> x;
  std::vector<float> scales;
  std::unique_ptr<Matrix> out;
  QuantMatmulArgs args;
};

float rounded(RoundTo to, float y) {
  if (to == RoundTo::kBF16) return round_to_bf16(y);
  return to == RoundTo::kF16 ? f16_to_f32(f32_to_f16(y)) : y;
}

// A sum over a group: of integers in 64 bits, of fp8 in the order of bf16_tile.
float sum_of(const Call& c, const StoredQuant& w, int64_t t, int64_t n, int64_t begin,
             int64_t end) {
  if (w.layout != QuantLayout::kFp8) {
    int64_t sum = 0;
    for (int64_t k = begin; k < end; ++k) sum += int64_t{c.args.x.row(t)[k]} * stored_code(w, n, k);
    return static_cast<float>(sum);
  }
  float sum = 0;
  for (int64_t k0 = begin; k0 < end; k0 += 32) {
    float e = 0, o = 0;
    for (int64_t k = k0; k < std::min(end, k0 + 32); ++k) {
      float& part = (k - k0) % 2 == 0 ? e : o;
      part = std::fma(e4m3_to_f32(static_cast<uint8_t>(c.args.x.row(t)[k])),
                      e4m3_to_f32(static_cast<uint8_t>(stored_code(w, n, k))), part);
    }
    sum += e + o;
  }
  return sum;
}

// y[t, n] by the definition.
float by_definition(const Call& c, size_t e, int64_t t, int64_t n) {
  const StoredQuant& w = c.stored[e]->view;
  const int64_t group = w.group == 0 ? w.k : w.group;
  const RowScales& s = c.args.x_scale;
  float y = 0;
  for (int64_t g = 0; g < ceil_div(w.k, group); ++g) {
    const float sum = sum_of(c, w, t, n, g * group, std::min(w.k, (g + 1) * group));
    const float x_scale = s.data[t * s.row_stride + g * s.group_stride];
    const float w_scale = stored_scale(w, n, g * group);
    const float term =
        w.layout == QuantLayout::kFp8 ? (sum * x_scale) * w_scale : (sum * w_scale) * x_scale;
    y = g == 0 ? term : y + term;
  }
  return rounded(c.p.round, y);
}

Problem random_problem(Random& random) {
  Problem p;
  p.layout = kLayouts[random.below(4)];
  p.counts.clear();
  for (int64_t e = random.between(1, 4); e > 0; --e)
    p.counts.push_back(static_cast<int32_t>(random.chance(0.3) ? 0 : random.between(1, 11)));
  p.n = random.between(1, 40);
  p.k = random.between(1, 200);
  if (p.layout == QuantLayout::kInt4RowPairs) p.n += p.n % 2;
  if (p.layout == QuantLayout::kInt4KPairs) p.k += p.k % 2;
  p.group = random.chance(0.4) ? 0 : random.between(32, 220);
  p.round = static_cast<RoundTo>(random.below(3));
  p.scope = random.chance(0.3) ? Problem::kGroup : random.chance(0.2) ? Problem::kTensor : p.kRow;
  p.block_n = random.between(0, 20);
  p.block_k = p.group == 0 ? 0 : p.group * random.below(3);
  return p;
}

TEST(QuantWeights, PanelsHoldTheStoredCodes) {
  Random random(1);
  for (const QuantLayout layout : kLayouts)
    for (const int64_t group : {int64_t{0}, int64_t{32}, int64_t{50}, int64_t{200}}) {
      const Stored stored(layout, 38, 130, group, random);
      const QuantWeights w = packed(stored.view);
      EXPECT_EQ(quant_bits(w.codes), stored.codes.size() == 38 * 130 ? 8 : 4);
      for (int64_t n = 0; n < 38; ++n)
        for (int64_t k = 0; k < 130; ++k)
          ASSERT_EQ(packed_code(w, n, k), stored_code(stored.view, n, k)) << n << " " << k;
    }
}

TEST(QuantWeights, NibblesByHand) {
  // Row pairs: byte k of packed row 0 holds rows 0 (low) and 1 (high), two's complement.
  const std::byte rows[] = {std::byte{0x7f}, std::byte{0x81}};
  const std::vector<float> scales = {1.0f, 1.0f};
  const StoredQuant a{QuantLayout::kInt4RowPairs, rows, scales, 2, 2, 0};
  EXPECT_EQ(stored_code(a, 0, 0), -1);
  EXPECT_EQ(stored_code(a, 1, 0), 7);
  EXPECT_EQ(stored_code(a, 0, 1), 1);
  EXPECT_EQ(stored_code(a, 1, 1), -8);
  // K pairs: the low nibble is the even k, less the zero point 8.
  const StoredQuant b{QuantLayout::kInt4KPairs, rows, scales, 2, 2, 0};
  EXPECT_EQ(stored_code(b, 0, 0), 7);
  EXPECT_EQ(stored_code(b, 0, 1), -1);
  EXPECT_EQ(stored_code(b, 1, 0), -7);
  EXPECT_EQ(stored_code(b, 1, 1), 0);
}

TEST(QuantWeights, RepackingKeepsEveryCode) {
  Random random(2);
  const int64_t n = 6, k = 50;
  const Stored rows(QuantLayout::kInt4RowPairs, n, k, 0, random);
  std::vector<std::byte> pairs(rows.codes.size()), back(rows.codes.size());
  ASSERT_TRUE(
      repack_int4(n, k, QuantLayout::kInt4RowPairs, rows.codes, QuantLayout::kInt4KPairs, pairs)
          .ok());
  const StoredQuant view{QuantLayout::kInt4KPairs, pairs, rows.scales, n, k, 0};
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j)
      ASSERT_EQ(stored_code(view, i, j), stored_code(rows.view, i, j));
  ASSERT_TRUE(
      repack_int4(n, k, QuantLayout::kInt4KPairs, pairs, QuantLayout::kInt4RowPairs, back).ok());
  EXPECT_EQ(back, rows.codes);
  EXPECT_FALSE(repack_int4(n, k, QuantLayout::kInt8, pairs, QuantLayout::kInt4RowPairs, back).ok());
  EXPECT_FALSE(
      repack_int4(5, k, QuantLayout::kInt4KPairs, pairs, QuantLayout::kInt4RowPairs, back).ok());
}

TEST(QuantWeights, SaysWhatIsWrong) {
  Random random(3);
  const std::unique_ptr<Device> device = make_cpu_device();
  const auto failure = [&](QuantLayout layout, auto change) {
    Stored stored(layout, 4, 64, 32, random);
    change(stored);
    const Result<QuantWeights> w = pack_quant_weights(*device, stored.view);
    return w.ok() ? std::string() : w.status().message();
  };
  constexpr QuantLayout k8 = QuantLayout::kInt8, kRows = QuantLayout::kInt4RowPairs,
                        kPairs = QuantLayout::kInt4KPairs, k8Float = QuantLayout::kFp8;
  EXPECT_EQ(failure(k8Float, [](Stored& s) { s.scales[0] = 0; }), "");
  EXPECT_EQ(failure(k8, [](Stored&) {}), "");
  const auto scale = [](float v) { return [v](Stored& s) { s.scales[5] = v; }; };
  const std::pair<const char*, std::string> cases[] = {
      {"n = 2, group 1: expected finite and not zero, got 0", failure(k8, scale(0.0f))},
      {"expected finite and not zero", failure(kRows, scale(NAN))},
      {"expected finite and not zero", failure(kPairs, scale(INFINITY))},
      {"N is even, got 3", failure(kRows, [](Stored& s) { s.view.n = 3; })},
      {"K is even, got 63", failure(kPairs, [](Stored& s) { s.view.k = 63; })},
      {"codes: expected 128 bytes", failure(kRows,
                                            [](Stored& s) {
                                              s.view.codes = {s.codes.data(), 127};
                                            })},
      {"codes: expected 256 bytes", failure(kRows, [](Stored& s) { s.view.layout = k8; })},
      {"group: expected 0", failure(k8, [](Stored& s) { s.view.group = 31; })},
      {"group: expected 0", failure(k8, [](Stored& s) { s.view.group = -1; })},
      {"codes: (n, k) = (1, 6) is NaN",
       failure(k8Float, [](Stored& s) { s.codes[64 + 6] = std::byte{0xff}; })},
      {"n = 2, group 1: expected finite, got inf", failure(k8Float,
                                                           [](Stored& s) {
                                                             s.view.scale_block_k = 32;
                                                             s.scales.assign(8, 1.0f);
                                                             s.scales[5] = INFINITY;
                                                             s.view.scales = s.scales;
                                                           })},
      {"K of a block: expected a multiple of the group of 32, got 48",
       failure(k8Float, [](Stored& s) { s.view.scale_block_k = 48; })},
      {"scale blocks: expected >= 0",
       failure(k8Float, [](Stored& s) { s.view.scale_block_n = -1; })},
      {"scales: expected [N, groups] = [1, 1]",
       failure(k8Float, [](Stored& s) { s.view.scale_block_n = 0; })},
      {"scales: expected [N, groups] = [4, 1]", failure(k8, [](Stored& s) { s.view.group = 64; })},
      {"[N, K]: expected", failure(k8, [](Stored& s) { s.view.n = 0; })},
      {"[N, K]: expected", failure(k8, [](Stored& s) { s.view.k = 65537; })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
}

using Row = Kernel<const QuantKernel>;
class QuantMatmulRow : public ::testing::TestWithParam<Row> {
 protected:
  static bool mine(const Problem& p) {
    const std::string_view weight = GetParam().weight;
    if (p.layout == QuantLayout::kFp8) return weight == "fp8";
    return weight == (p.layout == QuantLayout::kInt8 ? "int8" : "int4");
  }
  static QuantLayout layout() {
    const std::string_view weight = GetParam().weight;
    return weight == "fp8"    ? QuantLayout::kFp8
           : weight == "int8" ? QuantLayout::kInt8
                              : QuantLayout::kInt4RowPairs;
  }
};

TEST_P(QuantMatmulRow, EqualsTheReferenceAndTheDefinitionBitForBit) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context reference(Isa::kReference), row(GetParam().isa, 2);
  Random random(7);
  for (int64_t i = 0; i < test::property_runs(400); ++i) {
    const Problem p = random_problem(random);
    if (!mine(p)) continue;
    Call want(p, static_cast<uint64_t>(i)), got(p, static_cast<uint64_t>(i));
    want.run(reference);
    got.run(row);
    ASSERT_TRUE(same_bits(got.out->view(), want.out->view()))
        << "run " << i << ": K " << p.k << ", group " << p.group;
    const ScopedFloatEnv env;
    int64_t t = 0;
    for (size_t e = 0; e < p.counts.size(); ++e)
      for (int64_t r = 0; r < p.counts[e]; ++r, ++t)
        for (int64_t n = 0; n < p.n; ++n)
          ASSERT_TRUE(same_bits(want.out->at(t, n), by_definition(want, e, t, n)));
  }
}

TEST_P(QuantMatmulRow, ManyRowsAndLongGroupsEqualTheReference) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  for (const int64_t group : {int64_t{0}, int64_t{128}}) {
    Problem p;
    p.layout = layout();
    p.counts = {130, 17};
    p.n = 40;
    p.k = 600;
    p.group = group;
    p.scope = Problem::kGroup;
    Call want(p, 4), got(p, 4);
    want.run(Context(Isa::kReference));
    got.run(Context(GetParam().isa, 2));
    EXPECT_TRUE(same_bits(got.out->view(), want.out->view())) << group;
  }
}

TEST_P(QuantMatmulRow, ExtremeCodesStayExact) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  Problem p;
  p.layout = layout();
  p.k = 4096;
  p.counts = {9};
  Call c(p, 1);
  // -128 times -128, or the most negative nibble, or -448 times -448, all the way.
  const int code = p.layout == QuantLayout::kInt8  ? 0x80
                   : p.layout == QuantLayout::kFp8 ? 0xfe
                                                   : 0x88;
  for (std::byte& b : c.stored[0]->codes) b = static_cast<std::byte>(code);
  std::fill(c.x.begin(), c.x.end(), static_cast<int8_t>(p.layout == QuantLayout::kFp8 ? -2 : -128));
  c.weights[0] = packed(c.stored[0]->view);
  c.run(Context(GetParam().isa));
  const ScopedFloatEnv env;
  for (int64_t t = 0; t < 9; ++t)
    for (int64_t n = 0; n < p.n; ++n) ASSERT_EQ(c.out->at(t, n), by_definition(c, 0, t, n));
}

TEST_P(QuantMatmulRow, RowsDoNotDependOnBatchOrWorkers) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  Problem p;
  p.layout = layout();
  p.n = 100;
  p.k = 500;
  p.group = 96;
  p.counts = {0, 37, 1, 25};
  Call all(p, 3);
  all.run(Context(GetParam().isa));
  for (const int threads : {1, 2, 3}) {
    Call again(p, 3);
    again.run(Context(GetParam().isa, threads));
    EXPECT_TRUE(same_bits(again.out->view(), all.out->view()));
  }
  Call one(p, 3);
  one.args.x = {all.args.x.row(30), 1, p.k};
  one.args.x_scale = {all.scales.data() + 30};
  one.args.counts = {};
  one.args.experts = std::span(one.experts).subspan(1, 1);
  one.args.out = {&one.out->at(0, 0), 1, p.n};
  Scratch scratch(quant_matmul_workspace_bytes(1, 1, p.k, p.group, one.weights[0].codes));
  ASSERT_TRUE(quant_matmul(Context(GetParam().isa).exec, one.args, scratch.workspace()).ok());
  for (int64_t n = 0; n < p.n; ++n) EXPECT_TRUE(same_bits(one.out->at(0, n), all.out->at(30, n)));
}

INSTANTIATE_TEST_SUITE_P(Kernels, QuantMatmulRow,
                         ::testing::ValuesIn(test::all_rows(quant_kernels())), test::RowName());

TEST(QuantMatmul, Fp8IsWithinItsBoundOfF64) {
  Problem p;
  p.layout = QuantLayout::kFp8;
  p.counts = {5};
  p.n = 40;
  p.k = 700;
  p.scope = Problem::kGroup;
  for (const auto& [group, block_n, block_k] :
       {std::tuple{0, 1, 0}, std::tuple{0, 0, 0}, std::tuple{128, 16, 256},
        std::tuple{100, 7, 100}}) {
    p.group = group;
    p.block_n = block_n;
    p.block_k = block_k;
    Call c(p, 9);
    c.run(Context(detect_isa()));
    const int64_t size = group == 0 ? p.k : group, groups = ceil_div(p.k, size);
    for (int64_t t = 0; t < 5; ++t)
      for (int64_t n = 0; n < p.n; ++n) {
        double sum = 0, magnitudes = 0;
        for (int64_t k = 0; k < p.k; ++k) {
          const double x = e4m3_to_f32(static_cast<uint8_t>(c.args.x.row(t)[k]));
          const double w = e4m3_to_f32(static_cast<uint8_t>(stored_code(c.stored[0]->view, n, k)));
          const double term = x * w * c.scales[static_cast<size_t>(t * groups + k / size)] *
                              stored_scale(c.stored[0]->view, n, k);
          sum += term, magnitudes += std::fabs(term);
        }
        const auto roundings = static_cast<double>(19 + groups + ceil_div(size, 32));
        EXPECT_LE(std::fabs(c.out->at(t, n) - sum), 1.01 * roundings * 0x1p-24 * magnitudes);
      }
  }
}

TEST(QuantMatmul, AnFp8NaNStaysInItsRow) {
  for (const Isa isa : isa_paths()) {
    Problem p;
    p.layout = QuantLayout::kFp8;
    p.counts = {20};
    Call clean(p, 2), poisoned(p, 2);
    poisoned.x[static_cast<size_t>(1 + 17 * poisoned.stride + 40)] = 0x7f;
    clean.run(Context(isa)), poisoned.run(Context(isa));
    for (int64_t t = 0; t < 20; ++t)
      for (int64_t n = 0; n < p.n; ++n)
        if (t == 17)
          EXPECT_TRUE(std::isnan(poisoned.out->at(t, n))) << isa_name(isa);
        else
          EXPECT_TRUE(same_bits(poisoned.out->at(t, n), clean.out->at(t, n))) << isa_name(isa);
  }
}

TEST(QuantMatmul, SaysWhatIsWrong) {
  const auto failure = [](auto change) {
    Problem p;
    p.counts = {1, 2};
    Call call(p, 1);
    Scratch scratch(quant_matmul_workspace_bytes(3, 2, p.k, 0));
    Workspace workspace = scratch.workspace();
    change(call, workspace);
    const Status s = quant_matmul(Context(Isa::kReference).exec, call.args, workspace);
    return s.ok() ? std::string() : s.message();
  };
  EXPECT_EQ(failure([](Call&, Workspace&) {}), "");
  static const int32_t negative[] = {4, -1}, many[] = {1, 1}, three[] = {1, 1, 1};
  const std::pair<const char*, std::string> cases[] = {
      {"x: expected [T, K] = [3, 64], got [3, 63]",
       failure([](Call& c, Workspace&) { c.args.x.cols = 63; })},
      {"x_scale: is missing", failure([](Call& c, Workspace&) { c.args.x_scale = {}; })},
      {"out: expected [T, N] = [3, 16]",
       failure([](Call& c, Workspace&) { c.args.out.cols = 15; })},
      {"counts[1]: expected >= 0", failure([](Call& c, Workspace&) { c.args.counts = negative; })},
      {"sum of T = 3, got 2", failure([](Call& c, Workspace&) { c.args.counts = many; })},
      {"counts: expected [E] = [2], got [3]",
       failure([](Call& c, Workspace&) { c.args.counts = three; })},
      {"counts: expected [E] = [2] of several",
       failure([](Call& c, Workspace&) { c.args.counts = {}; })},
      {"experts[1]: is missing", failure([](Call& c, Workspace&) { c.experts[1] = nullptr; })},
      {"experts[1]: expected [N, K]", failure([](Call& c, Workspace&) { c.weights[1].k = 32; })},
      {"experts: expected one", failure([](Call& c, Workspace&) { c.args.experts = {}; })},
      {"workspace: expected", failure([](Call&, Workspace& w) { w.bytes -= 64; })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
}

}  // namespace
}  // namespace sluice
