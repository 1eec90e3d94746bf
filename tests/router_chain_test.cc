// Gemma 4's router against eager chains of torch ops on bf16 tensors
// (tools/goldens/make_router_goldens.py): the residual stream through norm, scale, D^-0.5, linear,
// softmax, top-k, renormalisation and per-expert scale, with the rounding points of five forms.
// Everything that is bf16 there is the same bits here; f32 weights agree within 16 ulp.
#include <gtest/gtest.h>

#include <cmath>

#include "model_runs.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/pack.h"
#include "ops/moe_route/moe_route.h"
#include "ops/router_norm/router_norm.h"
#include "ops/test_data.h"

namespace sluice::test {
namespace {

constexpr int64_t kD = 2816, kE = 128, kK = 8;

// The script's numbers: about normal around 0, the sum of a word's four quarters.
float bell(Random& random) {
  const uint64_t word = random.next();
  int64_t sum = -2 * 65535;
  for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>((word >> (16 * i)) & 0xffffu);
  return static_cast<float>(sum);
}
std::vector<float> drawn(uint64_t seed, int64_t n, float add, float unit) {
  Random random(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = round_to_bf16(add + bell(random) * unit);
  return v;
}

struct Form {
  const char* name;
  RouteRule rule;
  bool f32_weights;
};
const std::vector<Form>& forms() {
  static const std::vector<Form> kForms = [] {
    // Softmax over all and renormalisation in f32 over bf16 logits; the same, rounded at the end.
    Form hf{"hf", {RouteScore::kSoftmaxAll, true}, true};
    hf.rule.rounding.logits = true;
    Form max = hf;
    max.name = "max";
    max.rule.rounding.out = true;
    max.f32_weights = false;
    // Every result in the model's dtype; and with the choice made by logit, over all or before.
    Form dtype{"dtype", {RouteScore::kSoftmaxAll, true}, false};
    dtype.rule.rounding = {true, true, true, true};
    Form maxtext = dtype, sglang = dtype;
    maxtext.name = "maxtext";
    maxtext.rule.select = RouteSelect::kLogit;
    sglang.name = "sglang";
    sglang.rule.score = RouteScore::kSoftmaxSelected;
    sglang.rule.renormalise = false;
    return std::vector<Form>{hf, max, dtype, maxtext, sglang};
  }();
  return kForms;
}

class RouterChain : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > detect_isa())
      GTEST_SKIP() << isa_name(GetParam()) << ": this machine has none";
    golden_ = read_tensors(SLUICE_SOURCE_DIR "/tests/goldens/route/router.safetensors");
    per_expert_scale_ = drawn(2, kE, 1, 0x1p-18f);
  }
  std::vector<int32_t> seeds(const std::string& table) {
    return golden_.at(table + ".seeds").as<int32_t>();
  }

  // T rows, the golden ones over and over, of f32 or bf16 logits.
  void expect_routed(const std::string& table, const Form& form, LogitsView logits,
                     const ExecContext& context) {
    const auto ids = golden_.at(table + "." + form.name + ".ids").as<int32_t>();
    const auto weights = golden_.at(table + "." + form.name + ".weights").as<float>();
    const auto pairs = static_cast<size_t>(logits.rows * kK);
    std::vector<int32_t> got(pairs);
    std::vector<float> w(pairs);
    MoeRouteArgs args;
    args.logits = logits;
    args.rule = form.rule;
    args.k = kK;
    args.per_expert_scale = per_expert_scale_.data();
    args.ids = got;
    args.weights = w;
    const Status status = moe_route(context, args);
    ASSERT_TRUE(status.ok()) << status.message();
    for (size_t i = 0; i < pairs; ++i) {
      const size_t want = i % ids.size();
      ASSERT_EQ(got[i], ids[want]) << table << ", " << form.name << ", row " << i / kK;
      if (form.f32_weights)
        ASSERT_NEAR(w[i], weights[want], 16 * 0x1p-24f * weights[want])
            << table << ", " << form.name;
      else
        ASSERT_EQ(f32_to_bits(w[i]), f32_to_bits(weights[want]))
            << table << ", " << form.name << ", row " << i / kK << ": " << w[i] << " and "
            << weights[want];
    }
  }

  Tensors golden_;
  std::vector<float> per_expert_scale_;
};

TEST_P(RouterChain, EqualsTheEagerChainFromTheResidualStream) {
  const Context context(GetParam(), 2);
  const std::vector<float> scale = drawn(1, kD, 1, 0x1p-18f);
  std::vector<float> proj;
  for (uint64_t e = 0; e < kE; ++e) {
    const std::vector<float> row = drawn(50000 + e, kD, 0, 0x1p-17f);
    proj.insert(proj.end(), row.begin(), row.end());
  }
  const StoredMatrix stored = stored_rows(proj.data(), kE, kD);
  const auto rows = seeds("chain");
  const auto inputs = golden_.at("chain.input").as<uint16_t>();
  const auto logits_bits = golden_.at("chain.logits").as<uint16_t>();
  for (const int64_t t : {1, 7, 64, 1024}) {
    Matrix x(t, kD), read(t, kD), logits(t, kE);
    for (int64_t r = 0; r < t; ++r) {
      const auto row =
          drawn(static_cast<uint64_t>(rows[static_cast<size_t>(r) % rows.size()]), kD, 0, 0x1p-15f);
      std::copy(row.begin(), row.end(), x.view().row(r));
    }
    ASSERT_TRUE(router_norm(context.exec, {x.view(), scale.data(), 1e-6f, true, read.view()}).ok());
    for (size_t i = 0; i < inputs.size() && i < static_cast<size_t>(t * kD); ++i)
      ASSERT_EQ(bf16(read.view().data[i]).bits, inputs[i]) << "input " << i;
    for (const Arith arith : {Arith::kF32Fma, Arith::kBf16Tile}) {
      const auto packed =
          pack_matrix(*context.device, stored,
                      arith == Arith::kF32Fma ? WeightFormat::kF32 : WeightFormat::kBF16);
      ASSERT_TRUE(packed.ok()) << packed.status().message();
      Scratch scratch(matmul_workspace_bytes(t, kD));
      MatmulArgs product;
      product.arith = arith;
      product.x = read.view();
      product.w = &*packed;
      product.out = logits.view();
      const Status status = matmul(context.exec, product, scratch.workspace());
      ASSERT_TRUE(status.ok()) << status.message();
      for (int64_t r = 0; r < t; ++r)
        for (int64_t e = 0; e < kE; ++e)
          ASSERT_EQ(bf16(logits.at(r, e)).bits, logits_bits[static_cast<size_t>(r % 16 * kE + e)])
              << arith_name(arith) << ", row " << r << ", expert " << e;
      for (const Form& form : forms()) expect_routed("chain", form, logits.view(), context.exec);
    }
  }
}

TEST_P(RouterChain, TiesAndUnderflowChooseAsTheEagerChain) {
  const Context context(GetParam());
  for (const std::string table : {"ties", "underflow"}) {
    std::vector<uint16_t> logits;
    for (const int32_t seed : seeds(table)) {
      Random random(static_cast<uint64_t>(seed));
      for (int32_t e = 0; e < kE; ++e) {
        const float x = bell(random);
        float v = std::floor(x * 0x1p-15f) * 0.5f;
        if (table == "underflow") v = x * 0x1p-14f - (e % 32 == seed % 32 ? 0.0f : 200.0f);
        logits.push_back(bf16(v).bits);
      }
    }
    const auto rows = static_cast<int64_t>(logits.size()) / kE;
    for (const Form& form : forms())
      expect_routed(table, form, {logits.data(), DType::kBF16, rows, kE, kE}, context.exec);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, RouterChain,
                         ::testing::Values(Isa::kReference, Isa::kAvx2, Isa::kAvx512),
                         [](const auto& i) { return std::string(isa_name(i.param)); });

}  // namespace
}  // namespace sluice::test
