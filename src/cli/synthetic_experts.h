// Synthetic layers of experts for `sluice bench`: shapes, weights in every format, routing. All of
// it a function of a seed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "ops/moe_experts/moe_experts.h"
#include "tensor/arith.h"
#include "weights/packed.h"

namespace sluice {

struct ExpertShape {
  std::string_view name;
  int64_t d = 0, width = 0, experts = 0, k = 0;
  ActivationKind activation = ActivationKind::kSilu;
  bool bias = false;
};
std::span<const ExpertShape> expert_shapes();
// A name of expert_shapes(), or "D,I,E,K".
Result<ExpertShape> parse_expert_shape(const std::string& text);

// How `--weights` names become packed matrices. A new format is a new row.
struct SyntheticFormat {
  std::string_view name;
  Arith arith;
  WeightFormat format;
  // gate and up [I, D] as one kGluPanel16; down [D, I] as kPanel16; f32 values, row-major.
  Result<PackedMatrix> (*pack_glu)(Device& device, const float* gate, const float* up,
                                   int64_t width, int64_t d);
  Result<PackedMatrix> (*pack)(Device& device, const float* w, int64_t n, int64_t k);
};
std::span<const SyntheticFormat> synthetic_formats();

// `sets` copies of a layer. Experts hold one of a few contents, at addresses of their own: times do
// not depend on the values, and a layer is ready in seconds.
class SyntheticExperts {
 public:
  static Result<std::unique_ptr<SyntheticExperts>> create(Device& device, ThreadPool& pool,
                                                          const ExpertShape& shape,
                                                          const SyntheticFormat& format,
                                                          double rotate_bytes, uint64_t seed);
  int64_t sets() const { return sets_; }
  size_t expert_bytes() const { return expert_bytes_; }
  const Buffer& storage() const { return storage_; }
  ExpertWeights weights(int64_t set) const;

 private:
  ExpertShape shape_;
  int64_t sets_ = 1;
  size_t expert_bytes_ = 0;
  Buffer storage_;
  std::vector<PackedMatrix> matrices_;             // gate_up, down of each set and expert
  std::vector<const PackedMatrix*> up_, down_;     // [sets * E]
  std::vector<float> bias_;                        // [max(2 I, D)]
  std::vector<const float*> up_bias_, down_bias_;  // [E]
};

enum class ExpertRouting { kUniform, kZipf, kOne };
// K distinct experts of each of T tokens. zipf: an expert of rank r is drawn with weight 1 / r;
// one: all tokens choose the same.
std::vector<int32_t> draw_experts(const ExpertShape& shape, ExpertRouting routing, int64_t tokens,
                                  uint64_t seed);

}  // namespace sluice
