// The tensor table: every tensor of a model, declared once.
//
// A TensorRule says where a weight of the Model comes from: its size in dimension letters, its role
// (bytes by role), how tensor parallelism would cut it, where it goes, and every way in which
// checkpoints store it. resolve() matches the rules with the tensors of a source; load, inspect and
// footprint are visits of the result.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "model/model.h"
#include "model/spec.h"
#include "weights/tensor_source.h"

namespace sluice {

struct QuantizationConfig;

enum class TensorRole { kEmbedding, kHead, kAttention, kRouter, kExperts, kDense, kNorm };
inline constexpr int kTensorRoles = 7;
std::string_view tensor_role_name(TensorRole role);

// Which rows of a gate_up matrix a stored tensor holds.
enum class TensorPart {
  kWhole,
  kGate,
  kUp,
  kGateThenUp,   // first I rows gate, then I rows up
  kInterleaved,  // even rows gate, odd rows up
};
enum class DtypePolicy {
  kFloat,   // f32, f16, bf16
  kLinear,  // the same, and fp8 e4m3 with its scales beside it
  kBytes,   // u8: MXFP4 blocks or scales
};

// One stored tensor. Names are relative to the checkpoint's prefix, or absolute
// ("/lm_head.weight"); "{}" stands for the expert, one tensor each. Axes in stored order: E
// experts, N outputs (those of the part), K inputs, B blocks of 32 inputs, b the 16 bytes of a
// block; "1" is a tensor of one element.
struct StoredTensor {
  std::vector<std::string> names;  // the published one first
  std::string axes;
  TensorPart part = TensorPart::kWhole;
  DtypePolicy dtypes = DtypePolicy::kLinear;

  bool per_expert() const;
};
// One way to store a weight: all of these tensors together.
using StoredAs = std::vector<StoredTensor>;

// Where a weight goes. Layers are given by index; embedding and head ignore it.
using ToVector = F32Vector* (*)(Model&, int layer);             // [N]
using ToScalar = float* (*)(Model&, int layer);                 // one element
using ToMatrix = PackedMatrix* (*)(Model&, int layer);          // kPanel16 [N, K]; routers f32
using ToGateUp = DenseWeights* (*)(Model&, int layer);          // kGluPanel16 [2I, D]
using ToExperts = std::vector<PackedMatrix>* (*)(Model&, int);  // one matrix per expert
using ToExpertRows = std::vector<F32Vector>* (*)(Model&, int);  // one bias per expert
struct ToEmbedding {};                                          // row-major, or the tied head
struct ToNothing {};  // read by nobody: a tied head's copy
using TensorDestination = std::variant<ToVector, ToScalar, ToMatrix, ToGateUp, ToExperts,
                                       ToExpertRows, ToEmbedding, ToNothing>;

struct TensorRule {
  TensorRole role = TensorRole::kNorm;
  int layer = -1;
  std::string letters;  // "[H*C, D]": for people
  int64_t n = 0, k = 0, experts = 0;
  char shard = 'R';  // R every rank has it, N outputs are cut, E experts are cut
  TensorDestination to;
  std::vector<StoredAs> ways;
  float multiplier = 1.0f;  // of vectors
  bool glu = false;         // N = 2I: gate and up
  bool optional = false;

  int64_t parameters() const { return n * (k > 0 ? k : 1) * (experts > 0 ? experts : 1); }
};

struct TensorTable {
  std::vector<std::string> prefixes;  // tried in order by the embedding's name
  std::vector<std::string> ignored;   // tensors whose name starts so are no part of the text model
  std::vector<TensorRule> rules;
};

// Embedding, head, final norm and every layer's norms, attention and dense feed-forward under the
// names that Llama-shaped checkpoints share. Families add routers and experts.
void declare_decoder(const ModelSpec& spec, TensorTable& table);
// One rule more, with names inside "layers.N.".
TensorRule& add_layer_rule(TensorTable& table, int layer, TensorRule rule);
// The router's matrix [E, D] under one of `names`.
void add_router_rule(const ModelSpec& spec, int layer, TensorTable& table,
                     std::vector<std::string> names);
void add_router_bias_rule(const ModelSpec& spec, int layer, TensorTable& table, std::string name);
// The router's own norm: `scale` [D] times D^-0.5 becomes its weight; and the factor per expert.
void add_router_scale_rules(const ModelSpec& spec, int layer, TensorTable& table,
                            std::vector<std::string> scale, std::vector<std::string> per_expert);
// The expert matrices of a layer: [E, 2I, D] and [E, D, I], stored as `gate_up` and `down` say.
void add_expert_rules(const ModelSpec& spec, int layer, TensorTable& table,
                      std::vector<StoredAs> gate_up, std::vector<StoredAs> down);

void add_expert_bias_rules(const ModelSpec& spec, int layer, TensorTable& table,
                           StoredTensor gate_up, StoredTensor down);
// Experts stored one by one under `prefix` ("mlp.experts."), as {}.gate_proj.weight and so on.
StoredAs per_expert_gate_up(std::string_view prefix);
StoredAs per_expert_down(std::string_view prefix);

// A rule and the tensors that fill it.
struct ResolvedTensor {
  const TensorView* view = nullptr;
  const TensorView* scale = nullptr;     // fp8
  int64_t block_n = 128, block_k = 128;  // of the scale, if it has blocks
};
struct ResolvedRule {
  const TensorRule* rule = nullptr;
  const StoredAs* way = nullptr;
  // Per stored tensor of the way: one view, or one per expert.
  std::vector<std::vector<ResolvedTensor>> tensors;
};
struct Resolution {
  std::vector<ResolvedRule> rules;
  std::vector<std::string> problems;  // why this would not load, one sentence each
  std::vector<const TensorView*> ignored;
  std::string prefix;

  // The first problem and how many there are more.
  Status status() const;
};
Resolution resolve(const TensorTable& table, const TensorSource& source,
                   const QuantizationConfig& quantization);

// How the scales of an fp8 tensor lie: block (n / block_n, k / block_k) of [rows, cols], per expert
// or for all. Transposed like the weights they belong to.
struct ScaleLayout {
  int64_t block_n = 1, block_k = 1, rows = 1, cols = 1;
  bool per_expert = false, transposed = false;
};
std::optional<ScaleLayout> fp8_scale_layout(const TensorRule& rule, const StoredTensor& stored,
                                            const std::vector<int64_t>& shape, int64_t block_n,
                                            int64_t block_k);

// The full name of a stored tensor: `prefix` unless it is absolute, and the expert's number.
std::string stored_name(std::string_view prefix, std::string_view name, int64_t expert);
// The shape that a stored tensor must have.
std::vector<int64_t> stored_shape(const TensorRule& rule, const StoredTensor& stored);

}  // namespace sluice
