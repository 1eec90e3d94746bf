#include "model/forward_state.h"

#include <algorithm>
#include <numeric>

#include "ops/attention/attention.h"
#include "ops/grouped_matmul/grouped_matmul.h"
#include "ops/matmul/matmul.h"
#include "ops/moe_experts/moe_experts.h"

namespace sluice {
namespace {

// The largest of everything that sizes a buffer.
struct Extents {
  int64_t q = 0, kv = 0, dense = 0, experts = 0, k = 0, inputs = 0, heads = 0, head_size = 0;
  size_t moe_workspace = 0;
};

Extents measure(const ModelSpec& spec, int64_t max_tokens) {
  Extents x;
  x.inputs = spec.d;
  for (const LayerSpec& l : spec.layers) {
    const AttentionSpec& a = l.attention;
    x.q = std::max(x.q, a.heads * a.head_size);
    x.kv = std::max(x.kv, a.kv_heads * a.head_size);
    x.heads = std::max(x.heads, a.heads);
    x.head_size = std::max(x.head_size, a.head_size);
    if (l.dense) x.dense = std::max(x.dense, l.dense->width);
    if (!l.moe) continue;
    x.experts = std::max(x.experts, l.moe->experts);
    x.k = std::max(x.k, l.moe->k);
    x.moe_workspace = std::max(
        x.moe_workspace,
        moe_experts_workspace_bytes({max_tokens, l.moe->k, l.moe->experts, spec.d, l.moe->width}));
  }
  x.inputs = std::max({x.inputs, x.q, x.dense});
  return x;
}

// Allocates arrays one after the other and remembers the first failure. Without a device it only
// adds up their bytes.
class Allocation {
 public:
  Allocation(Device* device, std::vector<Buffer>& buffers) : device_(device), buffers_(buffers) {}
  template <class T>
  void operator()(T*& array, int64_t count, std::string_view what) {
    if (!status_.ok() || count == 0) return;
    bytes_ += static_cast<size_t>(count) * sizeof(T);
    if (device_ == nullptr) return;
    Result<Buffer> buffer = device_->allocate(static_cast<size_t>(count) * sizeof(T), what);
    if (!buffer.ok()) {
      status_ = buffer.status();
      return;
    }
    array = buffer->as<T>();
    buffers_.push_back(std::move(buffer).value());
  }
  const Status& status() const { return status_; }
  size_t bytes() const { return bytes_; }

 private:
  Device* device_;
  std::vector<Buffer>& buffers_;
  size_t bytes_ = 0;
  Status status_;
};

// Every array of a state whose sizes are set.
void allocate_state(ForwardState::Impl& s, const ModelSpec& spec, int workers,
                    Allocation& allocate) {
  const int64_t t = s.max_tokens;
  const Extents x = measure(spec, t);
  for (float** stream : {&s.hidden, &s.normed, &s.branch, &s.second})
    allocate(*stream, t * spec.d, "residual stream");
  allocate(s.q, t * x.q, "queries");
  allocate(s.mixed, t * x.q, "attention output");
  allocate(s.k, t * x.kv, "keys");
  allocate(s.v, t * x.kv, "values");
  allocate(s.units, t * x.dense, "dense feed-forward");
  allocate(s.router_logits, t * x.experts, "router logits");
  allocate(s.expert_ids, t * x.k, "expert ids");
  allocate(s.expert_weights, t * x.k, "expert weights");
  allocate(s.expert_starts, x.experts > 0 ? x.experts + 1 : 0, "sorted pairs");
  allocate(s.pair_source, t * x.k, "sorted pairs");
  allocate(s.pair_inverse, t * x.k, "sorted pairs");
  allocate(s.every_row, t, "row numbers");
  allocate(s.row_ranges, 2 * (t + 1), "row ranges");
  s.most_experts = x.experts;
  allocate(s.expert_counts, static_cast<int64_t>(spec.layers.size()) * x.experts, "expert counts");
  s.cos_sin.resize(spec.ropes.size());
  for (size_t r = 0; r < spec.ropes.size(); ++r)
    allocate(s.cos_sin[r], t * 2 * static_cast<int64_t>(spec.ropes[r].inv_freq.size()),
             "rope angles");
  allocate(s.logits, s.max_logit_rows * spec.vocabulary, "logits");
  s.workspace.bytes =
      std::max({matmul_workspace_bytes(t, x.inputs), grouped_matmul_workspace_bytes(t, x.inputs),
                attention_workspace_bytes(workers, x.heads, x.head_size), x.moe_workspace});
  allocate(s.workspace.data, static_cast<int64_t>(s.workspace.bytes), "workspace");
}

Status fill(Device& device, int32_t* array, const std::vector<int32_t>& values) {
  return device.upload(reinterpret_cast<std::byte*>(array), values.data(),
                       values.size() * sizeof(int32_t), nullptr);
}

}  // namespace

ForwardState::ForwardState() : impl_(std::make_unique<Impl>()) {}
ForwardState::~ForwardState() = default;

size_t ForwardState::bytes() const {
  size_t total = 0;
  for (const Buffer& b : impl_->buffers) total += b.bytes();
  return total;
}

ConstMatrixF32 ForwardState::logits() const {
  return {impl_->logits, impl_->logit_rows, impl_->vocabulary};
}

RouteSortStats ForwardState::routes() const {
  return impl_->routes;
}

void ForwardState::replayed(int64_t logit_rows, const RouteSortStats& routes) {
  impl_->logit_rows = logit_rows;
  impl_->routes.fused_calls += routes.fused_calls;
  impl_->routes.chained_calls += routes.chained_calls;
}

std::vector<std::vector<int64_t>> ForwardState::expert_counts() const {
  const Impl& s = *impl_;
  std::vector<std::vector<int64_t>> layers(s.experts.size());
  for (size_t l = 0; l < layers.size(); ++l) {
    layers[l].resize(static_cast<size_t>(s.experts[l]));
    const int64_t* counts = s.expert_counts + static_cast<int64_t>(l) * s.most_experts;
    if (const Status status =
            s.device->download(layers[l].data(), reinterpret_cast<const std::byte*>(counts),
                               layers[l].size() * sizeof(int64_t), nullptr);
        !status.ok())
      layers[l].assign(layers[l].size(), 0);  // a lost device has nothing to tell
  }
  return layers;
}

Result<std::unique_ptr<ForwardState>> ForwardState::create(Runtime& runtime, const Model& model,
                                                           int64_t max_tokens,
                                                           int64_t max_logit_rows) {
  const ModelSpec& spec = model.spec;
  if (max_tokens < 1 || max_logit_rows < 1 || max_logit_rows > max_tokens)
    return invalid_argument(
        "forward: max_logit_rows {} of max_tokens {}: expected 1 <= rows <= tokens", max_logit_rows,
        max_tokens);
  std::unique_ptr<ForwardState> state(new ForwardState());
  Impl& s = state->impl();
  s.max_tokens = max_tokens;
  s.max_logit_rows = max_logit_rows;
  s.vocabulary = spec.vocabulary;
  Allocation allocate(&runtime.device(), s.buffers);
  allocate_state(s, spec, runtime.pool().size(), allocate);
  SLUICE_RETURN_IF_ERROR(allocate.status());

  s.device = &runtime.device();
  for (const LayerSpec& l : spec.layers) s.experts.push_back(l.moe ? l.moe->experts : 0);
  std::vector<int32_t> rows(static_cast<size_t>(max_tokens));
  std::iota(rows.begin(), rows.end(), 0);
  SLUICE_RETURN_IF_ERROR(fill(*s.device, s.every_row, rows));
  std::vector<int32_t> ranges(2 * rows.size() + 2);
  for (size_t t = 0; t <= rows.size(); ++t) ranges[2 * t + 1] = static_cast<int32_t>(t);
  SLUICE_RETURN_IF_ERROR(fill(*s.device, s.row_ranges, ranges));
  return state;
}

size_t forward_state_bytes(const ModelSpec& spec, int workers, int64_t max_tokens,
                           int64_t max_logit_rows) {
  ForwardState::Impl sizes;
  sizes.max_tokens = max_tokens;
  sizes.max_logit_rows = max_logit_rows;
  Allocation allocate(nullptr, sizes.buffers);
  allocate_state(sizes, spec, workers, allocate);
  return allocate.bytes();
}

}  // namespace sluice
