// Two ways to one expert layer in fp8: the engine's moe_experts in arith fp8_g128, from a
// checkpoint's codes and 128 x 128 scales, and quant_experts with a scale for every row's 128 k,
// bit for bit on every ISA.
#include <gtest/gtest.h>

#include "ops/matmul/pack.h"
#include "ops/moe_experts/moe_experts.h"
#include "ops/quant_experts/quant_experts.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

constexpr int64_t kBlock = 128;

// [N, K] codes without NaN, and the scales of their blocks.
struct Stored {
  Stored(int64_t n_, int64_t k_, Random& random) : n(n_), k(k_), codes(static_cast<size_t>(n * k)) {
    for (std::byte& c : codes)
      c = static_cast<std::byte>(random.below(127) + 128 * random.below(2));
    for (int64_t i = 0; i < ceil_div(n, kBlock) * ceil_div(k, kBlock); ++i)
      scales.push_back(static_cast<float>(1e-4 + 1e-3 * random.uniform()));
  }
  // Rows [first, first + count), `first` at the begin of a block.
  StoredMatrix part(int64_t first, int64_t count) const {
    StoredMatrix m;
    m.dtype = DType::kF8E4M3;
    m.data = codes.data() + first * k;
    m.n = count;
    m.k = m.stride_n = k;
    m.scale_block_n = m.scale_block_k = kBlock;
    m.scale_cols = ceil_div(k, kBlock);
    m.scale = scales.data() + first / kBlock * m.scale_cols;
    return m;
  }
  StoredQuant quant() const {
    StoredQuant q{QuantLayout::kFp8, codes, scales, n, k, kBlock};
    q.scale_block_n = q.scale_block_k = kBlock;
    return q;
  }
  int64_t n, k;
  std::vector<std::byte> codes;
  std::vector<float> scales;
};

struct Layer {
  Layer(int64_t d_, int64_t width_, std::vector<int32_t> counts_, Random& random)
      : d(d_), width(width_), counts(std::move(counts_)) {
    for (const int32_t c : counts) {
      for (int32_t i = 0; i < c; ++i) ids.push_back(static_cast<int32_t>(up.size()));
      up.emplace_back(2 * width, d, random);
      down.emplace_back(d, width, random);
    }
  }
  int64_t rows() const { return std::ssize(ids); }

  // One expert of weight 1 for every row: what combine adds up is the row itself.
  Status engine(const Context& context, ConstMatrixF32 x, Matrix& out) const {
    std::vector<PackedMatrix> gate_ups, downs;
    std::vector<const PackedMatrix*> gate_up_ptrs, down_ptrs;
    for (size_t e = 0; e < up.size(); ++e) {
      gate_ups.push_back(pack_glu(*context.device, up[e].part(0, width), up[e].part(width, width),
                                  WeightFormat::kFP8)
                             .value());
      downs.push_back(pack_matrix(*context.device, down[e].part(0, d), WeightFormat::kFP8).value());
    }
    for (size_t e = 0; e < up.size(); ++e)
      gate_up_ptrs.push_back(&gate_ups[e]), down_ptrs.push_back(&downs[e]);
    const std::vector<float> weights(ids.size(), 1.0f);
    MoeExpertsArgs args;
    args.arith = Arith::kFp8G128;
    args.x = x;
    args.ids = ids;
    args.weights = weights;
    args.k = 1;
    args.experts.gate_up = gate_up_ptrs;
    args.experts.down = down_ptrs;
    args.experts.width = width;
    args.experts.activation = {ActivationKind::kSilu};
    args.out = out.view();
    Scratch scratch(moe_experts_workspace_bytes({rows(), 1, std::ssize(up), d, width}));
    return moe_experts(context.exec, args, scratch.workspace());
  }
  Status quantised(const Context& context, ConstMatrixF32 x, Matrix& out) const {
    std::vector<QuantWeights> ups, downs;
    std::vector<const QuantWeights*> up_ptrs, down_ptrs;
    for (size_t e = 0; e < up.size(); ++e) {
      ups.push_back(pack_quant_weights(*context.device, up[e].quant()).value());
      downs.push_back(pack_quant_weights(*context.device, down[e].quant()).value());
    }
    for (size_t e = 0; e < up.size(); ++e)
      up_ptrs.push_back(&ups[e]), down_ptrs.push_back(&downs[e]);
    QuantExpertsArgs args;
    args.x = x;
    args.counts = counts;
    args.up = up_ptrs;
    args.down = down_ptrs;
    args.group_scales = true;
    args.round = RoundTo::kF32;
    args.out = out.view();
    Scratch scratch(quant_experts_workspace_bytes({rows(), std::ssize(up), d, width, kBlock, kBlock,
                                                   QuantCodes::kFp8, QuantCodes::kFp8, true}));
    return quant_experts(context.exec, args, scratch.workspace());
  }

  int64_t d, width;
  std::vector<int32_t> counts, ids;
  std::vector<Stored> up, down;
};

TEST(Fp8Experts, TheEnginesAndTheQuantisedOnesAgree) {
  Random random(1);
  const std::pair<std::pair<int64_t, int64_t>, std::vector<int32_t>> cases[] = {
      {{256, 128}, {1}},
      {{300, 128}, {3, 0, 40, 2}},
      {{160, 256}, {17, 140}},
      {{128, 256}, {1, 2, 0, 5, 1, 1, 9, 1, 1, 4, 3, 1, 1, 1, 2, 2, 1, 1, 1, 1}}};
  for (const auto& [shape, counts] : cases) {
    const Layer layer(shape.first, shape.second, counts, random);
    Matrix x(layer.rows(), layer.d, 2);
    x.fill(random);
    for (const Isa isa : isa_paths()) {
      const Context context(isa, isa == Isa::kReference ? 0 : 2);
      Matrix got(layer.rows(), layer.d), want(layer.rows(), layer.d);
      const Status status = layer.engine(context, x.view(), got);
      ASSERT_TRUE(status.ok()) << status.message();
      const Status quantised = layer.quantised(context, x.view(), want);
      ASSERT_TRUE(quantised.ok()) << quantised.message();
      EXPECT_TRUE(same_bits(got.view(), want.view())) << isa_name(isa) << " D = " << layer.d;
    }
  }
}

}  // namespace
}  // namespace sluice
