// Model: a spec and its weights, packed for the kernels of one device.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"
#include "model/spec.h"
#include "ops/moe_experts/rounding_profile.h"
#include "tensor/arith.h"
#include "weights/packed.h"
#include "weights/tensor_source.h"

namespace sluice {

// Norms, biases, scales: always f32. Filled on the host, then moved to where steps run.
class F32Vector {
 public:
  F32Vector() = default;
  F32Vector(std::vector<float> values)  // NOLINT: implicit by design
      : size_(values.size()), host_(std::move(values)) {}
  Status move_to(Device& device);

  // Where steps run.
  const float* data() const { return device_.bytes() > 0 ? device_.as<float>() : host_.data(); }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Empty once the values have moved to a device of their own.
  std::span<float> host() { return host_; }
  float operator[](size_t i) const { return host_[i]; }

 private:
  size_t size_ = 0;
  std::vector<float> host_;
  Buffer device_;
};

// One matrix per expert in the form that grouped ops take.
class ExpertPointers {
 public:
  Status bind(Device& device, const std::vector<PackedMatrix>& matrices,
              const std::vector<F32Vector>& biases);
  std::span<const PackedMatrix* const> matrices() const { return matrices_; }
  // Empty without biases. Of a device that is not the host, device pointers in device memory.
  std::span<const float* const> biases() const;
  // The matrices' data, likewise; empty on the CPU.
  std::span<const std::byte* const> panels() const;

 private:
  std::vector<const PackedMatrix*> matrices_;
  std::vector<const float*> biases_;
  Buffer device_biases_, device_panels_;
};

struct AttentionWeights {
  PackedMatrix q, k, v, o;  // [H*C, D], [G*C, D], [G*C, D] (empty when k_is_v), [D, H*C]
  F32Vector q_bias, k_bias, v_bias, o_bias;
  F32Vector q_norm, k_norm;  // [C]
  F32Vector sinks;           // [H]
};
struct DenseWeights {
  PackedMatrix gate_up;  // kGluPanel16 [2I, D]
  PackedMatrix down;     // [D, I]
};
struct MoeWeights {
  PackedMatrix router;                      // f32 panels [E, D], whatever the compute mode
  F32Vector router_bias;                    // [E]
  F32Vector router_norm;                    // [D]: scale * D^-0.5, folded into a norm weight
  F32Vector router_scale;                   // [D]: scale in bf16; only where the profile asks
  F32Vector per_expert_scale;               // [E]
  std::vector<PackedMatrix> gate_up, down;  // per expert: kGluPanel16 [2I, D], kPanel16 [D, I]
  std::vector<F32Vector> gate_up_bias, down_bias;  // per expert; gate_up: gate first, then up
  // In the form grouped ops take; filled by bind().
  ExpertPointers gate_up_experts, down_experts;
  Status bind(Device& device) {
    SLUICE_RETURN_IF_ERROR(gate_up_experts.bind(device, gate_up, gate_up_bias));
    return down_experts.bind(device, down, down_bias);
  }
};
struct LayerWeights {
  // kPre: input, post_attention. kSandwich: all (the *_1, *_2 and pre_2 only with moe), names as
  // published.
  F32Vector input_norm, post_attention_norm, pre_feedforward_norm, post_feedforward_norm;
  F32Vector post_feedforward_norm_1, pre_feedforward_norm_2, post_feedforward_norm_2;
  AttentionWeights attention;
  DenseWeights dense;
  MoeWeights moe;
  float layer_scalar = 1.0f;
};

struct Model {
  ModelSpec spec;
  GenerationDefaults generation;
  Compute compute = Compute::kBf16;
  Mode mode = Mode::kDefault;
  bool bf16_dot = false;
  RoundingProfile profile;
  PackedMatrix
      embedding;      // [V, D] kRowMajor, or with a tied head kPanel16 (then head is a view of it)
  PackedMatrix head;  // [V, D] kPanel16
  F32Vector final_norm;
  std::vector<LayerWeights> layers;
  std::unique_ptr<TensorSource> source;  // kept while mapped tensors are in use
  size_t weight_bytes = 0;               // bytes resident
  double load_seconds = 0;
};

struct LoadOptions {
  Compute compute = Compute::kBf16;
  // A packed store's matrices are copied into memory of large pages instead of being used where the
  // file is mapped. Costs that memory beside the page cache, and the time of the copy.
  bool copy = false;
  Mode mode = Mode::kDefault;  // refused where no weight of the model has it
  // Weights in bf16 and MXFP4 are multiplied by bf16_dot (tensor/arith.h) instead of bf16_tile;
  // refused where there are none, and where no row is rounded to bf16.
  bool bf16_dot = false;
  // Where the expert layers round; refused where the model has none.
  RoundingProfile profile;
  // Called with tensors done / total from the loading thread; returning false cancels the load.
  std::function<bool(size_t done, size_t total)> progress;
};
// Loads a Hugging Face directory (config.json, generation_config.json, safetensors) or a packed
// store (weights/store.h), which must have been packed for this compute mode. Every tensor
// that the spec needs must be there with the right shape and a dtype its role accepts; every other
// tensor must be on the family's ignore list. All problems found are listed, the first in the
// message.
Result<std::unique_ptr<Model>> load_model(Runtime& runtime, const std::string& path,
                                          const LoadOptions& options);

// config.json (+ generation_config.json) of a directory -> spec, without touching tensors.
Result<ModelSpec> read_spec(const std::string& model_dir);
Result<GenerationDefaults> read_generation_defaults(const std::string& model_dir,
                                                    const ModelSpec& spec);

}  // namespace sluice
