// grouped_matmul: every product row and glu epilogue against the reference, glu against its chain,
// invariance, errors.
#include "ops/grouped_matmul/grouped_matmul.h"

#include <gtest/gtest.h>

#include <numeric>

#include "ops/grouped_matmul/kernels.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/weights_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

using Row = Kernel<const PanelKernel>;

struct Problem {
  int64_t experts = 4, slots = 8, n = 32, k = 64;  // glu: n = I
  bool glu = true, bias = false, rough = false;
  ActivationKind kind = ActivationKind::kSilu;
  int64_t pad = 0, offset = 0;
};

struct Operands {
  Operands(Device& device, WeightFormat format, const Problem& p, Random& random)
      : problem(p), x(p.slots + 2, p.k, p.pad, p.offset) {
    x.fill(random, p.rough);
    std::vector<int32_t> counts(static_cast<size_t>(p.experts));
    for (int64_t s = 0; s < p.slots; ++s) {
      ++counts[static_cast<size_t>(random.chance(0.5) ? 0 : random.below(p.experts))];
      source.push_back(static_cast<int32_t>(random.below(x.rows())));
    }
    starts.push_back(0);
    for (const int32_t c : counts) starts.push_back(starts.back() + c);
    for (int64_t e = 0; e < p.experts; ++e) {
      weights.push_back(p.glu ? test::random_glu_panels(device, format, p.n, p.k, random, p.rough)
                              : test::random_panels(device, format, p.n, p.k, random, p.rough));
      biases.emplace_back(static_cast<size_t>(p.glu ? 2 * p.n : p.n));
      for (float& b : biases.back()) b = random.normal();
    }
    for (size_t e = 0; e < weights.size(); ++e) {
      const bool used = counts[e] > 0;  // the weights of an expert without rows may be absent
      experts.push_back(used ? &weights[e] : nullptr);
      panels.push_back(used ? weights[e].data : nullptr);
      if (p.bias) bias.push_back(biases[e].data());
    }
  }
  GroupedMatmulArgs args(Arith arith, Matrix& out) {
    GroupedMatmulArgs a;
    a.arith = arith;
    a.x = x.view();
    a.source = source;
    a.starts = starts;
    a.experts = experts;
    a.bias = bias;
    a.glu = problem.glu;
    a.activation.kind = problem.kind;
    a.out = out.view();
    a.device_panels = panels;
    return a;
  }
  Problem problem;
  Matrix x;
  std::vector<int32_t> source, starts;
  std::vector<PackedMatrix> weights;
  std::vector<std::vector<float>> biases;
  std::vector<const PackedMatrix*> experts;
  std::vector<const std::byte*> panels;
  std::vector<const float*> bias;
};

Status run(const Context& context, const GroupedMatmulArgs& args) {
  Scratch scratch(grouped_matmul_workspace_bytes(args.starts.back(), args.x.cols));
  return context.finish(grouped_matmul(context.exec, args, scratch.workspace()));
}

// glu by its chain: each expert's product plain (2 I outputs, gate first), then elementwise glu.
Matrix chain(const Context& context, Operands& in, Arith arith) {
  const Problem& p = in.problem;
  Matrix both(p.slots, 2 * p.n), out(p.slots, p.n);
  GroupedMatmulArgs args = in.args(arith, both);
  args.glu = false;
  EXPECT_TRUE(run(context, args).ok());
  const MatrixF32 v = both.view();
  const ConstMatrixF32 gate(v.data, p.slots, p.n, v.stride),
      up(v.data + p.n, p.slots, p.n, v.stride);
  EXPECT_TRUE(context.finish(glu(context.exec, gate, up, args.activation, out.view())).ok());
  return out;
}

class GroupedMatmulRow : public test::PanelRow {};

TEST_P(GroupedMatmulRow, EqualsTheReferenceAndTheChain) {
  Random random(61);
  Context truth(Isa::kReference);
  for (int64_t i = 0; i < test::property_runs(30); ++i) {
    Problem p;
    p.experts = random.between(1, 6);
    p.slots = random.between(1, random.chance(0.2) ? 80 : 12);
    p.n = random.between(1, 70);
    p.k = format() == WeightFormat::kMXFP4 ? 32 * random.between(1, 5) : random.between(1, 150);
    if (is_int_format(format()) && random.chance(0.3)) p.k = random.between(200, 1200);
    p.glu = random.chance(0.7);
    p.bias = random.chance(0.5);
    p.rough = random.chance(0.3);
    p.kind = static_cast<ActivationKind>(random.below(4));
    p.pad = random.below(5);
    p.offset = random.below(16);
    Context context(GetParam().isa, static_cast<int>(random.below(4)));
    Operands in(*context.device, format(), p, random);
    Matrix got(p.slots, p.n, p.pad, p.offset), want(p.slots, p.n);
    const Status status = run(context, in.args(arith(), got));
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_TRUE(run(truth, in.args(arith(), want)).ok());
    ASSERT_TRUE(same_bits(got.view(), want.view()))
        << p.slots << " slots, N = " << p.n << ", K = " << p.k << ", E = " << p.experts
        << (p.glu ? ", glu" : "");
    ASSERT_TRUE(got.guards_hold());
    if (!p.glu) continue;
    ASSERT_TRUE(same_bits(got.view(), chain(context, in, arith()).view()));
  }
}

TEST_P(GroupedMatmulRow, ASlotEqualsMatmulAloneAndOnAnyThreads) {
  Random random(62);
  Context one(GetParam().isa, 1), three(GetParam().isa, 3);
  Problem p{3, 41, 96, 128, false, true};
  Operands in(*one.device, format(), p, random);
  Matrix a(p.slots, p.n), b(p.slots, p.n), alone(1, p.n);
  ASSERT_TRUE(run(one, in.args(arith(), a)).ok());
  ASSERT_TRUE(run(three, in.args(arith(), b)).ok());
  EXPECT_TRUE(is_cuda(GetParam().isa) || three.pool->parallel_loops() > 0);
  EXPECT_TRUE(same_bits(a.view(), b.view()));
  Scratch scratch(matmul_workspace_bytes(1, p.k));
  for (size_t e = 0; e < in.experts.size(); ++e)
    for (int32_t s = in.starts[e]; s < in.starts[e + 1]; ++s) {
      MatmulArgs args;
      args.arith = arith();
      args.x = in.x.view();
      args.rows = {&in.source[static_cast<size_t>(s)], 1};
      args.w = in.experts[e];
      args.bias = in.bias[e];
      args.out = alone.view();
      ASSERT_TRUE(one.finish(matmul(one.exec, args, scratch.workspace())).ok());
      ASSERT_TRUE(same_bits(alone.view(), {a.view().row(s), 1, p.n, p.n}));
    }
}

INSTANTIATE_TEST_SUITE_P(Rows, GroupedMatmulRow,
                         ::testing::ValuesIn(test::all_rows(panel_kernels())), test::RowName());

TEST(GroupedMatmul, WithoutSourceSlotsAreRowsOfX) {
  Random random(31);
  const Context context(Isa::kReference, 2);
  Problem p;
  Operands in(*context.device, WeightFormat::kF32, p, random);
  std::iota(in.source.begin(), in.source.end(), 0);
  Matrix named(p.slots, p.n), bare(p.slots, p.n);
  Scratch scratch(grouped_matmul_workspace_bytes(p.slots, p.k));
  GroupedMatmulArgs args = in.args(Arith::kF32Fma, named);
  ASSERT_TRUE(grouped_matmul(context.exec, args, scratch.workspace()).ok());
  args.source = {};
  args.out = bare.view();
  ASSERT_TRUE(grouped_matmul(context.exec, args, scratch.workspace()).ok());
  EXPECT_TRUE(same_bits(named.view(), bare.view()));
}
TEST(GroupedMatmul, EveryIsaOfTheProductsHasItsEpilogue) {
  for (const Row& row : panel_kernels()) {
    if (is_cuda(row.isa)) continue;  // these end in the activation themselves
    EXPECT_NE(select_kernel(glu_epilogues(), row.isa, "f32", "any", "any"), nullptr) << row.name;
  }
}

TEST(GroupedMatmul, LeavesSlotsBehindTheLastStartAlone) {
  Context context(detect_isa());
  Random random(63);
  Problem p{2, 4, 16, 32, false};
  Operands in(*context.device, WeightFormat::kF32, p, random);
  Matrix out(6, 16);
  for (int64_t c = 0; c < 16; ++c) out.at(4, c) = out.at(5, c) = 99;
  ASSERT_TRUE(run(context, in.args(Arith::kF32Fma, out)).ok());
  for (int64_t c = 0; c < 16; ++c) {
    EXPECT_EQ(out.at(4, c), 99);
    EXPECT_EQ(out.at(5, c), 99);
  }
  std::fill(in.starts.begin(), in.starts.end(), 0);
  EXPECT_TRUE(run(context, in.args(Arith::kF32Fma, out)).ok());
}

TEST(GroupedMatmul, RefusesWhatItCannotDo) {
  Context context(Isa::kReference);
  Random random(64);
  Problem p{2, 4, 16, 32};
  Operands in(*context.device, WeightFormat::kF32, p, random);
  in.starts = {0, 2, 4};
  in.experts = {&in.weights[0], &in.weights[1]};
  Matrix out(4, 16), narrow(4, 15);
  const GroupedMatmulArgs good = in.args(Arith::kF32Fma, out);
  ASSERT_TRUE(run(context, good).ok());
  const auto refused = [&](const GroupedMatmulArgs& args, std::string_view word) {
    const Status s = run(context, args);
    EXPECT_NE(s.message().find(word), std::string::npos) << s.message();
    return !s.ok();
  };
  GroupedMatmulArgs bad = good;
  const PackedMatrix* missing[] = {&in.weights[0], nullptr};
  bad.experts = missing;
  EXPECT_TRUE(refused(bad, "expert 1 has 2 slots but no weights"));
  bad = good, bad.out = narrow.view();
  EXPECT_TRUE(refused(bad, "out: I: expected 16, got 15"));
  bad = good, bad.x.cols = 31;
  EXPECT_TRUE(refused(bad, "K: expected 32"));
  bad = good, bad.arith = Arith::kBf16Tile;
  EXPECT_TRUE(refused(bad, "kernel of arith bf16_tile for f32"));
  const PackedMatrix plain =
      test::random_panels(*context.device, WeightFormat::kF32, 32, 32, random);
  const PackedMatrix* mixed[] = {&in.weights[0], &plain};
  bad = good, bad.experts = mixed;
  EXPECT_TRUE(refused(bad, "expert 1: expected f32 glu_panel16"));
  const PackedMatrix* plains[] = {&plain, &plain};
  bad = good, bad.experts = plains;
  EXPECT_TRUE(refused(bad, "layout: expected glu_panel16"));
  const int32_t down[] = {0, 3, 2};
  bad = good, bad.starts = down;
  EXPECT_TRUE(refused(bad, "ascending"));
  const int32_t far[] = {0, 2, 5};
  bad = good, bad.starts = far;
  EXPECT_TRUE(refused(bad, "5 slots"));
  const int32_t beyond[] = {0, 2, 7};  // without source, slots are rows of x
  bad = good, bad.starts = beyond, bad.source = {};
  EXPECT_TRUE(refused(bad, "7 slots, but x has 6"));
  in.source[1] = 6;
  EXPECT_TRUE(refused(good, "source: expected in [0, 6), got 6"));
  in.source[1] = 0;
  Scratch small(64);
  EXPECT_NE(grouped_matmul(context.exec, good, small.workspace()).message().find("workspace"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
