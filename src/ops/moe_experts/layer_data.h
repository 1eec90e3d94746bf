// Random expert layers for tests, and the layer by its pieces.
#pragma once

#include "ops/grouped_matmul/grouped_matmul.h"
#include "ops/matmul/panels.h"
#include "ops/matmul/weights_data.h"
#include "ops/moe_experts/moe_experts.h"
#include "ops/moe_sort/moe_sort.h"

namespace sluice::test {

struct Problem {
  int64_t t = 5, k = 2, experts = 6, d = 64, width = 32;
  int64_t block = kIntBlock;  // of int4 and int8
  bool bias = false, mapped = false;
  Activation activation;
  RoundingProfile profile;
  WeightPoint weight_point = WeightPoint::kOutput;
  CombineThen then = CombineThen::kStore;
};

struct Layer {
  Layer(Device& device, WeightFormat format, const Problem& p, Random& random)
      : problem(p), x(p.t, p.d, 3, 5), norm_weight(static_cast<size_t>(p.d)) {
    x.fill(random);
    for (float& w : norm_weight) w = random.normal();
    IntPacking how = kQuickPacking;
    how.block = p.block;
    for (int64_t e = 0; e < p.experts; ++e) {
      gate_up.push_back(random_glu_panels(device, format, p.width, p.d, random, false, how));
      down.push_back(random_panels(device, format, p.d, p.width, random, false, how));
      gate_up_bias.emplace_back(static_cast<size_t>(2 * p.width));
      down_bias.emplace_back(static_cast<size_t>(p.d));
      for (float& b : gate_up_bias.back()) b = random.normal();
      for (float& b : down_bias.back()) b = random.normal();
    }
    for (size_t e = 0; e < gate_up.size(); ++e) {
      gate_up_ptrs.push_back(&gate_up[e]);
      down_ptrs.push_back(&down[e]);
      gate_up_panels.push_back(gate_up[e].data);
      down_panels.push_back(down[e].data);
      if (p.bias) gate_up_bias_ptrs.push_back(gate_up_bias[e].data());
      if (p.bias) down_bias_ptrs.push_back(down_bias[e].data());
    }
    // With a map, global experts outnumber the local ones.
    const int64_t global = p.mapped ? p.experts + 3 : p.experts;
    if (p.mapped)
      for (int64_t e = 0; e < global; ++e)
        map.push_back(e % 2 == 0 && e / 2 < p.experts ? static_cast<int32_t>(e / 2) : -1);
    for (int64_t i = 0; i < p.t * p.k; ++i) {
      ids.push_back(static_cast<int32_t>(random.below(global)));
      weights.push_back(static_cast<float>(random.uniform()));
    }
  }
  MoeExpertsArgs args(Arith arith, Matrix& out) {
    MoeExpertsArgs a;
    a.arith = arith;
    a.x = x.view();
    a.ids = ids;
    a.weights = weights;
    a.k = problem.k;
    a.expert_map = map;
    a.experts.gate_up = gate_up_ptrs;
    a.experts.down = down_ptrs;
    a.experts.gate_up_panels = gate_up_panels;
    a.experts.down_panels = down_panels;
    a.experts.gate_up_bias = gate_up_bias_ptrs;
    a.experts.down_bias = down_bias_ptrs;
    a.experts.width = problem.width;
    a.experts.activation = problem.activation;
    a.profile = problem.profile;
    a.weight_point = problem.weight_point;
    a.then = problem.then;
    a.norm_weight = norm_weight.data();
    (problem.then == CombineThen::kResidualAdd ? a.residual : a.out) = out.view();
    return a;
  }
  Problem problem;
  Matrix x;
  std::vector<float> norm_weight;
  std::vector<PackedMatrix> gate_up, down;
  std::vector<std::vector<float>> gate_up_bias, down_bias;
  std::vector<const PackedMatrix*> gate_up_ptrs, down_ptrs;
  std::vector<const std::byte*> gate_up_panels, down_panels;
  std::vector<const float*> gate_up_bias_ptrs, down_bias_ptrs;
  std::vector<int32_t> ids, map;
  std::vector<float> weights;
};

inline Activation random_activation(Random& random) {
  Activation a;
  a.kind = static_cast<ActivationKind>(random.below(4));
  a.limit = static_cast<float>(random.between(1, 7));
  if (random.chance(0.3))
    a.clamp = a.kind != ActivationKind::kSwigluOai && random.chance(0.5) ? ActivationClamp::kAfter
                                                                         : ActivationClamp::kBefore;
  return a;
}

inline Status run(const Context& context, const MoeExpertsArgs& a) {
  Scratch scratch(moe_experts_workspace_bytes({.max_tokens = a.x.rows,
                                               .k = a.k,
                                               .experts = std::ssize(a.experts.gate_up),
                                               .d = a.x.cols,
                                               .width = a.experts.width,
                                               .weight_point = a.weight_point}));
  return context.finish(moe_experts(context.exec, a, scratch.workspace()));
}

inline Status grouped(const Context& context, const GroupedMatmulArgs& a) {
  const auto slots = static_cast<int64_t>(a.source.size());
  Scratch scratch(grouped_matmul_workspace_bytes(slots, a.x.cols));
  return context.finish(grouped_matmul(context.exec, a, scratch.workspace()));
}

// The pieces one by one: sort, weigh, gate_up plain, glu, down, combine.
class Chain {
 public:
  Chain(const Context& context, const MoeExpertsArgs& args)
      : c_(context),
        a_(args),
        slots_(std::ssize(args.ids)),
        starts_(args.experts.gate_up.size() + 1),
        source_(args.ids.size()),
        inverse_(args.ids.size()),
        hidden_(slots_, args.experts.width),
        rows_(slots_, args.x.cols) {}
  void run() {
    sort();
    up();
    down();
    combine();
  }

 private:
  void sort() {
    MoeSortArgs sort;
    sort.ids = a_.ids;
    sort.k = a_.k;
    sort.experts = std::ssize(a_.experts.gate_up);
    sort.expert_map = a_.expert_map;
    sort.starts = starts_;
    sort.source = source_;
    sort.inverse = inverse_;
    ASSERT_TRUE(c_.finish(moe_sort(c_.exec, sort)).ok());
  }
  void every_slot() {
    for (size_t i = 0; i < source_.size(); ++i) source_[i] = static_cast<int32_t>(i);
  }
  void up() {
    const int64_t width = a_.experts.width, live = starts_.back();
    Matrix both(slots_, 2 * width), weighed(slots_, a_.x.cols);
    GroupedMatmulArgs up;
    up.arith = a_.arith;
    up.x = a_.x;
    if (a_.weight_point == WeightPoint::kInput) {
      const Status status = weigh_rows(c_.exec, {.x = a_.x,
                                                 .k = a_.k,
                                                 .slots = inverse_,
                                                 .weights = a_.weights,
                                                 .rounded = a_.profile.weighted_inputs,
                                                 .out = weighed.view()});
      ASSERT_TRUE(c_.finish(status).ok());
      up.x = weighed.view();
      every_slot();
    }
    up.source = source_;
    up.starts = starts_;
    up.experts = a_.experts.gate_up;
    up.device_panels = a_.experts.gate_up_panels;
    up.bias = a_.experts.gate_up_bias;
    up.out = both.view();
    ASSERT_TRUE(grouped(c_, up).ok());
    Activation activation = a_.experts.activation;
    activation.rounding = a_.profile.activation;
    const MatrixF32 v = both.view();
    const Status status =
        glu(c_.exec, {v.data, live, width, v.stride}, {v.data + width, live, width, v.stride},
            activation, {hidden_.view().data, live, width});
    ASSERT_TRUE(c_.finish(status).ok());
  }
  void down() {
    every_slot();
    GroupedMatmulArgs down;
    down.arith = a_.arith;
    down.x = hidden_.view();
    down.source = source_;
    down.starts = starts_;
    down.experts = a_.experts.down;
    down.device_panels = a_.experts.down_panels;
    down.bias = a_.experts.down_bias;
    down.out = rows_.view();
    ASSERT_TRUE(grouped(c_, down).ok());
  }
  void combine() {
    MoeCombineArgs combine;
    combine.y = rows_.view();
    combine.inverse = inverse_;
    if (a_.weight_point == WeightPoint::kOutput) combine.weights = a_.weights;
    combine.k = a_.k;
    combine.rounding = a_.profile.combine;
    combine.then = a_.then;
    combine.norm_weight = a_.norm_weight;
    combine.eps = a_.eps;
    combine.out = a_.out;
    combine.residual = a_.residual;
    ASSERT_TRUE(c_.finish(moe_combine(c_.exec, combine)).ok());
  }

  const Context& c_;
  const MoeExpertsArgs& a_;
  int64_t slots_;
  std::vector<int32_t> starts_, source_, inverse_;
  Matrix hidden_, rows_;
};
inline void chain(const Context& context, const MoeExpertsArgs& args) {
  Chain(context, args).run();
}

}  // namespace sluice::test
