// quant_experts: the whole against the chain of its pieces, on every ISA, whatever the batch and
// the workers; errors.
#include "ops/quant_experts/quant_experts.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/elementwise/elementwise.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

struct Problem {
  QuantLayout up = QuantLayout::kInt8, down = QuantLayout::kInt8;
  int64_t d = 96, width = 80, up_group = 0, down_group = 0;
  std::vector<int32_t> counts = {3, 0, 5, 4};
  RoundTo round = RoundTo::kBF16;
  bool smooth = true, group_scales = false;
};

struct Call {
  Call(const Problem& problem, uint64_t seed) : p(problem) {
    Random random(seed);
    for (const int32_t c : p.counts) t += c;
    const size_t experts = p.counts.size();
    for (size_t e = 0; e < experts; ++e) {
      up.push_back(weights(p.up, 2 * p.width, p.d, p.up_group, random));
      down.push_back(weights(p.down, p.d, p.width, p.down_group, random));
    }
    for (size_t e = 0; e < experts; ++e) {
      up_pointers.push_back(&up[e]);
      down_pointers.push_back(&down[e]);
    }
    x = std::make_unique<Matrix>(t, p.d, 1);
    x->fill(random);
    for (int64_t i = 0; t > 1 && i < p.d; ++i) x->at(1, i) *= 1e-6f;  // quantised to zeros
    out = std::make_unique<Matrix>(t, p.d, 3, 1);
    for (size_t i = 0; i < experts * static_cast<size_t>(p.d); ++i)
      smooth_up.push_back(static_cast<float>(0.5 + random.uniform()));
    for (size_t i = 0; i < experts * static_cast<size_t>(p.width); ++i)
      smooth_down.push_back(static_cast<float>(0.5 + random.uniform()));
    args.x = x->view();
    args.counts = p.counts;
    args.up = up_pointers;
    args.down = down_pointers;
    if (p.smooth) args.inv_smooth_up = smooth_up.data(), args.inv_smooth_down = smooth_down.data();
    args.group_scales = p.group_scales;
    args.round = p.round;
    args.out = out->view();
  }
  static QuantWeights weights(QuantLayout layout, int64_t n, int64_t k, int64_t group,
                              Random& random) {
    static const std::unique_ptr<Device> device = make_cpu_device();
    std::vector<std::byte> codes(
        static_cast<size_t>(quant_layout_name(layout).starts_with("int4") ? n * k / 2 : n * k));
    const bool fp8 = layout == QuantLayout::kFp8;  // without its NaNs
    for (std::byte& b : codes) b = static_cast<std::byte>(random.below(fp8 ? 0x7f : 256));
    const int64_t block = fp8 ? group : 1, rows = block == 0 ? 1 : ceil_div(n, block);
    std::vector<float> scales(static_cast<size_t>(rows * (group == 0 ? 1 : ceil_div(k, group))));
    for (float& s : scales) s = round_to_bf16(static_cast<float>(0.001 + 0.01 * random.uniform()));
    return pack_quant_weights(*device, {layout, codes, scales, n, k, group, block, group}).value();
  }
  size_t bytes() const {
    return quant_experts_workspace_bytes({t, static_cast<int64_t>(p.counts.size()), p.d, p.width,
                                          p.up_group, p.down_group, up[0].codes, down[0].codes,
                                          p.group_scales});
  }
  Call& run(const Context& context) {
    Scratch scratch(bytes());
    const Status s = quant_experts(context.exec, args, scratch.workspace());
    EXPECT_TRUE(s.ok()) << s.message();
    EXPECT_TRUE(out->guards_hold());
    return *this;
  }
  Problem p;
  int64_t t = 0;
  std::vector<QuantWeights> up, down;
  std::vector<const QuantWeights*> up_pointers, down_pointers;
  std::unique_ptr<Matrix> x, out;
  std::vector<float> smooth_up, smooth_down;
  QuantExpertsArgs args;
};

// The five pieces, each with operands of its own.
Matrix chain(const Context& context, Call& c) {
  const int64_t t = c.t, width = c.p.width;
  Matrix up(t, 2 * width), act(t, width), out(t, c.p.d);
  const auto linear = [&](ConstMatrixF32 x, const float* smooth,
                          std::span<const QuantWeights* const> w, int64_t group, MatrixF32 y) {
    std::vector<uint8_t> codes(static_cast<size_t>(t * x.cols));
    const bool fp8 = w[0]->codes == QuantCodes::kFp8;
    const int64_t groups = c.p.group_scales ? ceil_div(x.cols, w[0]->group) : 1;
    std::vector<float> scales(static_cast<size_t>(t * groups));
    QuantizeRowsArgs q;
    q.to = fp8 ? QuantizeTo::kE4m3 : QuantizeTo::kInt8;
    q.scope = c.p.group_scales ? QuantizeScope::kGroup : QuantizeScope::kRow;
    q.group = w[0]->group;
    q.x = x;
    q.inv_smooth = smooth;
    if (smooth != nullptr) q.counts = c.p.counts;
    q.codes = {codes.data(), t, x.cols, x.cols};
    q.scales = {scales.data(), groups, 1};
    EXPECT_TRUE(quantize_rows(context.exec, q).ok());
    QuantMatmulArgs a;
    a.x = {reinterpret_cast<const int8_t*>(codes.data()), t, x.cols, x.cols};
    a.x_scale = {scales.data(), groups, c.p.group_scales ? 1 : 0};
    a.counts = c.p.counts;
    a.experts = w;
    a.round = c.p.round;
    a.out = y;
    Scratch scratch(quant_matmul_workspace_bytes(t, static_cast<int64_t>(w.size()), x.cols, group,
                                                 w[0]->codes));
    EXPECT_TRUE(quant_matmul(context.exec, a, scratch.workspace()).ok());
  };
  linear(c.args.x, c.args.inv_smooth_up, c.args.up, c.p.up_group, up.view());
  const MatrixF32 all = up.view();
  EXPECT_TRUE(glu(context.exec, {all.data, t, width, all.stride},
                  {all.data + width, t, width, all.stride}, {ActivationKind::kSilu}, act.view())
                  .ok());
  linear(act.view(), c.args.inv_smooth_down, c.args.down, c.p.down_group, out.view());
  return out;
}

const Problem kProblems[] = {
    {},
    {QuantLayout::kInt4RowPairs, QuantLayout::kInt4RowPairs, 160, 96, 64, 40},
    {QuantLayout::kInt4KPairs,
     QuantLayout::kInt8,
     70,
     66,
     32,
     0,
     {2, 1, 0, 3, 4, 0, 5, 2},
     RoundTo::kF16},
    {QuantLayout::kInt8, QuantLayout::kInt4KPairs, 48, 128, 40, 100, {1}, RoundTo::kF16, false},
    {QuantLayout::kInt8, QuantLayout::kInt8, 48, 32, 0, 0, {0, 70}, RoundTo::kF32, false},
    {QuantLayout::kInt8,
     QuantLayout::kInt4KPairs,
     96,
     80,
     40,
     32,
     {3, 2},
     RoundTo::kF32,
     true,
     true},
    {QuantLayout::kFp8, QuantLayout::kFp8, 96, 80, 0, 0, {3, 0, 5}, RoundTo::kBF16, false},
    {QuantLayout::kFp8, QuantLayout::kFp8, 300, 136, 128, 128, {40, 7}, RoundTo::kF32, false, true},
    {QuantLayout::kFp8, QuantLayout::kFp8, 160, 96, 64, 0, {1, 9}, RoundTo::kF16, true, true},
    {QuantLayout::kFp8, QuantLayout::kInt8, 160, 96, 64, 96, {1, 9}, RoundTo::kBF16},
};

TEST(QuantExperts, EqualsTheChainOfItsPiecesOnEveryIsa) {
  for (const Problem& p : kProblems) {
    Call reference(p, 5);
    reference.run(Context(Isa::kReference));
    for (const Isa isa : isa_paths()) {
      const Context context(isa, 2);
      Call whole(p, 5);
      whole.run(context);
      Matrix pieces = chain(context, whole);
      EXPECT_TRUE(same_bits(whole.out->view(), pieces.view())) << isa_name(isa);
      EXPECT_TRUE(same_bits(whole.out->view(), reference.out->view())) << isa_name(isa);
    }
  }
}

TEST(QuantExperts, RowsDoNotDependOnBatchOrWorkers) {
  Problem p = kProblems[1];
  p.counts = {0, 40, 7};
  const Isa isa = detect_isa();
  Call all(p, 6);
  all.run(Context(isa));
  for (const int threads : {1, 2, 3})
    EXPECT_TRUE(same_bits(Call(p, 6).run(Context(isa, threads)).out->view(), all.out->view()));
  Call one(p, 6);
  const std::vector<int32_t> counts = {0, 1, 0};
  one.args.counts = counts;
  one.args.x = {&one.x->at(33, 0), 1, p.d};
  one.args.out = {&one.out->at(33, 0), 1, p.d};
  Scratch scratch(one.bytes());
  ASSERT_TRUE(quant_experts(Context(isa).exec, one.args, scratch.workspace()).ok());
  for (int64_t i = 0; i < p.d; ++i) EXPECT_TRUE(same_bits(one.out->at(33, i), all.out->at(33, i)));
}

TEST(QuantExperts, Bfloat16InputEqualsItsWidenedValues) {
  Call wide({}, 7), narrow({}, 7);
  std::vector<bf16> x;
  for (int64_t r = 0; r < wide.t; ++r)
    for (int64_t i = 0; i < wide.p.d; ++i) {
      wide.x->at(r, i) = round_to_bf16(wide.x->at(r, i));
      x.push_back(bf16(wide.x->at(r, i)));
    }
  narrow.args.x = {};
  narrow.args.x_bf16 = {x.data(), wide.t, wide.p.d, wide.p.d};
  const Context context(detect_isa());
  EXPECT_TRUE(same_bits(narrow.run(context).out->view(), wide.run(context).out->view()));
}

TEST(QuantExperts, NoRowsWriteNothingAndANaNStaysInItsRow) {
  Problem none;
  none.counts = {0, 0};
  Call empty(none, 8);
  empty.run(Context(detect_isa()));

  Call clean({}, 9), poisoned({}, 9);
  poisoned.x->at(4, 7) = NAN;
  const Context context(detect_isa());
  clean.run(context), poisoned.run(context);
  for (int64_t r = 0; r < clean.t; ++r)
    for (int64_t i = 0; i < clean.p.d; ++i) {
      if (r == 4)
        EXPECT_TRUE(std::isnan(poisoned.out->at(r, i)));
      else
        EXPECT_TRUE(same_bits(poisoned.out->at(r, i), clean.out->at(r, i)));
    }
}

TEST(QuantExperts, SaysWhatIsWrong) {
  const auto failure = [](auto change) {
    Call call({}, 1);
    Scratch scratch(call.bytes());
    Workspace workspace = scratch.workspace();
    change(call, workspace);
    const Status s = quant_experts(Context(Isa::kReference).exec, call.args, workspace);
    return s.ok() ? std::string() : s.message();
  };
  EXPECT_EQ(failure([](Call&, Workspace&) {}), "");
  const std::pair<const char*, std::string> cases[] = {
      {"up, down, counts: expected [E] each", failure([](Call& c, Workspace&) { c.args.up = {}; })},
      {"up, down, counts: expected [E] each",
       failure([](Call& c, Workspace&) { c.args.counts = {}; })},
      {"down: expected [D, I] beside up's [2I, D] = [160, 96]",
       failure([](Call& c, Workspace&) { c.args.down = c.args.up; })},
      {"codes: expected [T, D]", failure([](Call& c, Workspace&) { c.args.x.cols = 90; })},
      {"out: expected", failure([](Call& c, Workspace&) { c.args.out.rows = 3; })},
      {"workspace: expected", failure([](Call&, Workspace& w) { w.bytes -= 64; })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
}

}  // namespace
}  // namespace sluice
