// A decoder layer for `sluice bench layer`: synthetic weights at a published shape, and its ops in
// the order of model/forward.cc, one call each. What happens once a step and not once a layer
// (embedding, angles, head) is not in it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/synthetic_experts.h"
#include "device/device.h"
#include "ops/kv_write/kv_cache.h"
#include "ops/moe_route/rule.h"

namespace sluice {

struct LayerShape {
  std::string_view name;
  std::string_view experts;  // of expert_shapes()
  int64_t heads = 0, kv_heads = 0, head_size = 0, window = 0;
  int64_t dense = 0;  // width of a dense branch beside the experts; 0: none
  bool qk_norm = false, v_norm = false, k_is_v = false, sinks = false;
  bool bias = false;      // of q, k, v, o and the router
  bool sandwich = false;  // norms on both sides of every branch, a router with a norm of its own
  RouteScore score = RouteScore::kSoftmaxAll;
};
std::span<const LayerShape> layer_shapes();
// A name of layer_shapes(), or "D,I,E,K": 8 heads of 64 over 2, norms before each branch.
Result<LayerShape> parse_layer_shape(const std::string& text, ExpertShape* experts);

struct LayerOp {
  std::string_view name;
  std::function<Status()> run;
};

class SyntheticLayer {
 public:
  // `tokens` of one sequence behind `context` cached ones.
  static Result<std::unique_ptr<SyntheticLayer>> create(
      Runtime& runtime, const LayerShape& shape, const ExpertShape& experts,
      const SyntheticExperts& weights, const SyntheticFormat& expert_format,
      const SyntheticFormat& dense_format, const RoundingProfile& profile, int64_t tokens,
      int64_t context, uint64_t seed);
  std::span<const LayerOp> ops() const { return ops_; }
  // The next step's input, and the next copy of the experts.
  void begin_step(int64_t step);
  int64_t experts_used() const;
  // The residual stream [T, D] behind the last step.
  std::span<const float> output() const { return {hidden_, static_cast<size_t>(t_ * e_.d)}; }

 private:
  struct Linear {
    PackedMatrix matrix;
    Arith arith = Arith::kF32Fma;
    std::vector<float> bias;  // empty: none
  };
  Status pack(uint64_t seed);
  Result<Linear> linear(const SyntheticFormat& format, int64_t n, int64_t k, uint64_t seed) const;
  float* floats(int64_t count, float value = 0.0f);
  MatrixF32 stream(float* data) const { return {data, t_, e_.d}; }
  void add_norm(std::string_view name, float* from, float* to);
  void add_matmul(std::string_view name, const Linear& w, float* x, float* out);
  void add_attention();
  void add_router(float* x);
  void add_experts(CombineThen then, float* out);
  void add_dense();
  void declare_pre_norm();
  void declare_sandwich();

  Runtime* runtime_ = nullptr;
  ExecContext context_;
  LayerShape s_;
  ExpertShape e_;
  const SyntheticExperts* experts_ = nullptr;
  RoundingProfile profile_;
  const SyntheticFormat *expert_format_ = nullptr, *dense_format_ = nullptr;
  int64_t t_ = 0, cached_ = 0, set_ = 0;
  Linear q_, k_, v_, o_, router_, gate_up_, down_;
  std::vector<std::vector<float>> storage_;
  float *input_ = nullptr, *hidden_ = nullptr, *normed_ = nullptr, *branch_ = nullptr,
        *second_ = nullptr, *ones_ = nullptr;
  float *heads_q_ = nullptr, *heads_k_ = nullptr, *heads_v_ = nullptr, *mixed_ = nullptr;
  float *units_ = nullptr, *logits_ = nullptr, *angles_ = nullptr;
  std::vector<float> weights_;
  std::vector<int32_t> ids_, starts_, source_, inverse_, positions_, slots_, table_, rows_;
  std::vector<int32_t> query_starts_;
  Buffer cache_, workspace_;
  KvCacheView view_;
  std::vector<LayerOp> ops_;
};

}  // namespace sluice
