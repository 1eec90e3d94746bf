#include "model/footprint.h"

#include <algorithm>

namespace sluice {

namespace {

bool all_stored_as(const ResolvedRule& resolved, DType dtype) {
  for (const auto& tensors : resolved.tensors)
    for (const ResolvedTensor& t : tensors)
      if (t.view->dtype != dtype) return false;
  return true;
}

void add_embedding(const ModelSpec& spec, const TensorRule& rule, const ResolvedRule* resolved,
                   Compute compute, RoleFootprint* role) {
  if (spec.tied_head)
    role->packed_bytes += packed_bytes(packed_format(rule, resolved, compute),
                                       WeightLayout::kPanel16, rule.n, rule.k);
  else if (resolved != nullptr)
    role->mapped_bytes += resolved->tensors[0][0].view->bytes;
  else
    role->mapped_bytes += static_cast<size_t>(rule.n * rule.k) * 2;
}

size_t allocated_bytes(const TensorRule& rule, const ResolvedRule* resolved, Compute compute) {
  const auto copies = static_cast<size_t>(std::max<int64_t>(rule.experts, 1));
  if (rule.k == 0) return copies * static_cast<size_t>(rule.n) * sizeof(float);
  const WeightLayout layout = rule.glu ? WeightLayout::kGluPanel16 : WeightLayout::kPanel16;
  return copies * packed_bytes(packed_format(rule, resolved, compute), layout, rule.n, rule.k);
}

}  // namespace

WeightFormat packed_format(const TensorRule& rule, const ResolvedRule* resolved, Compute compute) {
  const StoredAs& way = resolved != nullptr ? *resolved->way : rule.ways.front();
  if (way.front().dtypes == DtypePolicy::kBytes) return WeightFormat::kMXFP4;
  if (rule.role == TensorRole::kRouter) return WeightFormat::kF32;
  if (compute == Compute::kBf16 || resolved == nullptr) return WeightFormat::kBF16;
  return all_stored_as(*resolved, DType::kBF16) ? WeightFormat::kBF16 : WeightFormat::kF32;
}

ModelFootprint footprint(const ModelSpec& spec, const TensorTable& table,
                         const Resolution* resolution, Compute compute) {
  ModelFootprint out;
  for (const TensorRule& rule : table.rules) {
    if (std::holds_alternative<ToNothing>(rule.to)) continue;
    const ResolvedRule* resolved = nullptr;
    if (resolution != nullptr)
      for (const ResolvedRule& r : resolution->rules)
        if (r.rule == &rule) resolved = &r;
    RoleFootprint& role = out.roles[static_cast<size_t>(rule.role)];
    const int64_t parameters = rule.parameters();
    role.parameters += parameters;
    out.parameters += parameters;
    const bool embedding = std::holds_alternative<ToEmbedding>(rule.to);
    if (rule.experts > 0 && rule.layer >= 0) {
      const MoeSpec& moe = *spec.layers[static_cast<size_t>(rule.layer)].moe;
      out.active_parameters += parameters / moe.experts * moe.k;
    } else if (!embedding || spec.tied_head) {
      out.active_parameters += parameters;
    }
    if (embedding)
      add_embedding(spec, rule, resolved, compute, &role);
    else
      role.packed_bytes += allocated_bytes(rule, resolved, compute);
  }
  for (const RoleFootprint& role : out.roles) {
    out.weight_bytes += role.packed_bytes;
    out.mapped_bytes += role.mapped_bytes;
  }
  const size_t element = compute == Compute::kF32 ? 4 : 2;
  for (const KvGroupSpec& g : spec.kv_groups)
    out.kv_bytes_per_token.push_back(g.layers.size() * 2 *
                                     static_cast<size_t>(g.kv_heads * g.head_size) * element);
  return out;
}

}  // namespace sluice
