#include "ops/sample/gpu.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/float_env.h"
#include "ops/sample/adjust.h"
#include "ops/sample/choose.h"
#include "ops/sample/report.h"

namespace sluice {
namespace {

// Hands out aligned arrays from an address, or only counts.
struct Cursor {
  std::byte* base;
  size_t used = 0;
  template <class T>
  T* take(int64_t count) {
    std::byte* at = base == nullptr ? nullptr : base + used;
    used += WorkspaceCarver::padded(static_cast<size_t>(count) * sizeof(T));
    return reinterpret_cast<T*>(at);
  }
};

bool penalized(const SamplingParams& p) {
  return p.presence_penalty != 0 || p.frequency_penalty != 0;
}

SampleSizes sizes_of(const SampleArgs& args) {
  SampleSizes sizes;
  sizes.rows = args.logits.rows;
  sizes.n = args.logits.cols;
  for (const SampleRow& row : args.rows) {
    const SamplingParams& p = *row.params;
    sizes.top = std::max<int64_t>(sizes.top, std::min<int64_t>(p.logprobs, sizes.n));
    if (!needs_adjustment(row)) continue;
    ++sizes.adjusted;
    sizes.biases += std::ssize(p.logit_bias);
    if (p.repetition_penalty != 1.0f) sizes.ids += std::ssize(row.prompt);
    if (p.repetition_penalty != 1.0f || penalized(p)) sizes.ids += std::ssize(row.output);
  }
  return sizes;
}

// Appends rows to the host's copy of the arrays.
class Packer {
 public:
  explicit Packer(SampleBatch& batch) : batch_(batch) {}

  void add(const SampleRow& row, int64_t r) {
    const SamplingParams& p = *row.params;
    SampleRule rule = device_rule(choice_rule(row), batch_.draws.n);
    rule.logprobs = p.logprobs >= 0;
    if (needs_adjustment(row)) {
      rule.adjusted = adjusted_++;
      rule.repetition = p.repetition_penalty;
      rule.frequency = p.frequency_penalty;
      rule.presence = p.presence_penalty;
      rule.bias = add_biases(p);
      if (p.repetition_penalty != 1.0f) rule.prompt = add_ids(row.prompt);
      if (p.repetition_penalty != 1.0f || penalized(p)) rule.output = add_ids(row.output);
    }
    batch_.rules[r] = rule;
  }

 private:
  SampleList add_ids(std::span<const int32_t> ids) {
    const int32_t begin = ids_;
    std::copy(ids.begin(), ids.end(), batch_.ids + begin);
    ids_ += static_cast<int32_t>(ids.size());
    return {begin, ids_};
  }
  SampleList add_biases(const SamplingParams& p) {
    const int32_t begin = biases_;
    sorted_ = p.logit_bias;
    std::stable_sort(sorted_.begin(), sorted_.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [id, bias] : sorted_) {
      batch_.bias_ids[biases_] = id;
      batch_.biases[biases_++] = bias;
    }
    return {begin, biases_};
  }

  SampleBatch& batch_;
  std::vector<std::pair<int32_t, float>> sorted_;
  int32_t adjusted_ = 0, ids_ = 0, biases_ = 0;
};

// What the launches of a batch depend on.
void describe(const SampleSizes& sizes, const SampleRule* rules, SampleDraws& draws) {
  draws.adjusts = sizes.adjusted > 0;
  for (int64_t r = 0; r < sizes.rows; ++r) {
    draws.draws |= !rules[r].greedy;
    draws.bounded |= !rules[r].greedy && rules[r].bounded;
    draws.logprobs |= rules[r].logprobs;
  }
}

void find_alternatives(TopkKernel* topk, const SampleBatch& batch, int64_t k) {
  TopkRows best;
  best.x = batch.draws.logits;
  best.x_stride = batch.draws.stride;
  best.rows = batch.draws.rows;
  best.n = batch.draws.n;
  best.k = k;
  best.ids = batch.top_ids;
  best.values = batch.top_values;
  best.stream = batch.draws.stream;
  topk(best);
}

void report(const SampleBatch& batch, const SampleSizes& sizes, std::span<SampleRow> rows) {
  for (int64_t r = 0; r < sizes.rows; ++r) {
    SampleRow& row = rows[static_cast<size_t>(r)];
    const SampleResult& result = batch.draws.results[r];
    row.token = result.token;
    row.logprob = 0.0f;
    row.top.clear();
    if (row.params->logprobs < 0) continue;
    set_logprobs(result.logit, result.max, result.exp_sum, batch.top_ids + r * sizes.top,
                 batch.top_values + r * sizes.top, std::min<int64_t>(row.params->logprobs, sizes.n),
                 row);
  }
}

}  // namespace

SampleBatch lay_out(const SampleSizes& s, std::byte* base) {
  const int64_t chunks = ceil_div(s.n, kSampleChunk);
  SampleBatch b;
  Cursor at{base};
  b.draws.rows = s.rows;
  b.draws.n = s.n;
  b.draws.rules = b.rules = at.take<SampleRule>(s.rows);
  b.draws.ids = b.ids = at.take<int32_t>(s.ids);
  b.draws.bias_ids = b.bias_ids = at.take<int32_t>(s.biases);
  b.draws.biases = b.biases = at.take<float>(s.biases);
  b.uploaded = at.used;
  b.draws.states = at.take<SampleState>(s.rows);
  b.draws.best = at.take<uint64_t>(s.rows * chunks);
  b.draws.coarse = at.take<SampleBin>(s.rows * kSampleCoarse);
  b.draws.fine = at.take<SampleBin>(s.rows * kSampleFine);
  b.draws.equal = at.take<uint32_t>(s.rows * chunks);
  b.draws.adjusted = at.take<float>(s.adjusted * s.n);
  b.draws.marks = at.take<int32_t>(s.adjusted * s.n);
  b.results = at.used;
  b.draws.results = at.take<SampleResult>(s.rows);
  b.top_ids = at.take<int32_t>(s.rows * s.top);
  b.top_values = at.take<float>(s.rows * s.top);
  b.bytes = at.used;
  return b;
}

SampleRule device_rule(const ChoiceRule& c, int64_t n) {
  SampleRule rule;
  rule.inverse_temperature = 1.0f / c.temperature;
  rule.top_p = c.top_p;
  rule.farthest = min_p_distance(c.min_p);
  rule.random24 = c.random24;
  if (c.top_k > 0 && c.top_k < n) rule.top_k = static_cast<uint64_t>(c.top_k);
  rule.greedy = c.temperature <= 0 || c.top_p <= 0 || c.top_k == 1 ||
                !std::isfinite(rule.inverse_temperature);
  rule.bounded = (c.top_k > 0 && c.top_k < n) || c.top_p < 1.0f;
  return rule;
}

// Host memory for the way there and back; pageable where the caller lends none.
Status sample_on_gpu(const ExecContext& context, const SampleKernel& kernel, TopkKernel* topk,
                     const SampleArgs& args, Workspace workspace) {
  const SampleSizes sizes = sizes_of(args);
  const SampleBatch layout = lay_out(sizes, nullptr);
  Buffer own;
  if (workspace.bytes < layout.bytes) {
    SLUICE_ASSIGN_OR_RETURN(own, context.device->allocate(layout.bytes, "sampling"));
    workspace = {own.data(), own.bytes()};
  }
  const size_t staged = std::max(layout.uploaded, layout.bytes - layout.results);
  std::vector<std::byte> pageable;
  Workspace staging = args.staging;
  if (staging.bytes < staged) {
    pageable.resize(staged);
    staging = {pageable.data(), staged};
  }
  const ScopedFloatEnv env;
  SampleBatch packed = lay_out(sizes, staging.data), batch = lay_out(sizes, workspace.data);
  Packer packer(packed);
  for (size_t r = 0; r < args.rows.size(); ++r) packer.add(args.rows[r], static_cast<int64_t>(r));
  batch.draws.logits = args.logits.data;
  batch.draws.stride = args.logits.stride;
  batch.draws.stream = context.stream;
  describe(sizes, packed.rules, batch.draws);
  SLUICE_RETURN_IF_ERROR(
      context.device->upload(workspace.data, staging.data, layout.uploaded, context.stream));
  kernel.draw(batch.draws);
  if (sizes.top > 0) find_alternatives(topk, batch, sizes.top);
  SLUICE_RETURN_IF_ERROR(context.device->download(staging.data, workspace.data + layout.results,
                                                  layout.bytes - layout.results, context.stream));
  if (context.stream != nullptr) SLUICE_RETURN_IF_ERROR(context.stream->synchronize());
  SampleBatch got;
  Cursor at{staging.data};
  got.draws.results = at.take<SampleResult>(sizes.rows);
  got.top_ids = at.take<int32_t>(sizes.rows * sizes.top);
  got.top_values = at.take<float>(sizes.rows * sizes.top);
  report(got, sizes, args.rows);
  return ok_status();
}

}  // namespace sluice
