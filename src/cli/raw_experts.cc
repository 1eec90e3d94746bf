#include "cli/raw_experts.h"

#include <algorithm>
#include <random>
#include <set>

namespace sluice {

RawExperts::RawExperts(const ExpertShape& shape, const SyntheticFormat& format, uint64_t seed)
    : shape_(shape),
      format_(format),
      gate_(static_cast<size_t>(shape.d * shape.width)),
      up_(gate_.size()),
      down_(gate_.size()) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (std::vector<float>* w : {&gate_, &up_, &down_})
    for (float& v : *w) v = (static_cast<float>(random()) * 0x1p-31f - 1.0f) * 0.03f;
  const auto experts = static_cast<size_t>(shape.experts);
  packed_up_.resize(experts), packed_down_.resize(experts);
  up_ptrs_.assign(experts, nullptr), down_ptrs_ = up_ptrs_;
  if (!shape.bias) return;
  bias_.resize(static_cast<size_t>(std::max(2 * shape.width, shape.d)), 0.1f);
  bias_ptrs_.assign(experts, bias_.data());
}

Result<ExpertWeights> RawExperts::prefuse(Device& device, ThreadPool& pool,
                                          std::span<const int32_t> ids) {
  const std::set<int32_t> distinct(ids.begin(), ids.end());
  const std::vector<int32_t> used(distinct.begin(), distinct.end());
  std::vector<Status> status(used.size());
  pool.parallel_for(std::ssize(used), 1, [&](int64_t i, int) {
    const auto e = static_cast<size_t>(used[static_cast<size_t>(i)]);
    Result<PackedMatrix> up =
        format_.pack_glu(device, gate_.data(), up_.data(), shape_.width, shape_.d);
    Result<PackedMatrix> down = format_.pack(device, down_.data(), shape_.d, shape_.width);
    status[static_cast<size_t>(i)] = !up.ok() ? up.status() : down.status();
    if (!up.ok() || !down.ok()) return;
    packed_up_[e] = std::move(up).value();
    packed_down_[e] = std::move(down).value();
    up_ptrs_[e] = &packed_up_[e], down_ptrs_[e] = &packed_down_[e];
  });
  for (const Status& s : status) SLUICE_RETURN_IF_ERROR(s);
  ExpertWeights w;
  w.gate_up = up_ptrs_;
  w.down = down_ptrs_;
  w.gate_up_bias = w.down_bias = bias_ptrs_;
  w.width = shape_.width;
  w.activation.kind = shape_.activation;
  return w;
}

}  // namespace sluice
