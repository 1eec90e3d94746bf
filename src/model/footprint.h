// What a model costs: bytes by role, KV bytes per token, parameters in all and per token.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/spec.h"
#include "model/tensor_table.h"
#include "tensor/arith.h"
#include "weights/packed.h"

namespace sluice {

struct RoleFootprint {
  int64_t parameters = 0;
  size_t packed_bytes = 0;  // allocated at load
  size_t mapped_bytes = 0;  // read from the mapped file as needed
};
struct ModelFootprint {
  std::array<RoleFootprint, kTensorRoles> roles;  // by TensorRole
  int64_t parameters = 0;
  // Parameters read per token: everything but the input embedding, with K of E experts.
  int64_t active_parameters = 0;
  size_t weight_bytes = 0;  // allocated at load
  size_t mapped_bytes = 0;
  std::vector<size_t> kv_bytes_per_token;  // per KV group, all its layers
};

// With a resolution: as this checkpoint is stored. Without (null): as published, bf16 or MXFP4.
ModelFootprint footprint(const ModelSpec& spec, const TensorTable& table,
                         const Resolution* resolution, Compute compute);

// In which format a rule's matrix is packed. bf16 stays bf16 in compute f32: widening is exact.
WeightFormat packed_format(const TensorRule& rule, const ResolvedRule* resolved, Compute compute);

}  // namespace sluice
