#include "ops/sample/sample.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/parallel.h"
#include "ops/sample/adjust.h"
#include "ops/sample/choose.h"
#include "ops/sample/gpu.h"
#include "ops/sample/kernels.h"
#include "ops/sample/philox.h"
#include "ops/sample/report.h"
#include "ops/topk/kernels.h"

namespace sluice {
namespace {

constexpr Kernel<const SampleKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/sample/kernels.inc"
#undef SLUICE_KERNEL
};

constexpr int64_t kMostVocabulary = int64_t{1} << 20;
constexpr int32_t kMostLogprobs = 20;

// NaN is in no range.
bool within(float v, float low, float high) {
  return v >= low && v <= high;
}

Status check_ids(const char* what, std::span<const int32_t> ids, int64_t v) {
  for (const int32_t id : ids)
    if (id < 0 || id >= v)
      return invalid_argument("sample: {}: expected V in [0, {}), got {}", what, v, id);
  return ok_status();
}

Status check(const SampleArgs& a) {
  const int64_t t = static_cast<int64_t>(a.rows.size()), v = a.logits.cols;
  if (a.logits.rows != t)
    return invalid_argument("sample: rows: expected T = {}, got {}", a.logits.rows, t);
  if (v < 1 || v > kMostVocabulary)
    return invalid_argument("sample: logits: V: expected 1 to {}, got {}", kMostVocabulary, v);
  if (a.logits.stride < v || (t > 0 && a.logits.data == nullptr))
    return invalid_argument("sample: logits: is missing, or its stride is below V = {}", v);
  for (const SampleRow& row : a.rows) {
    if (row.params == nullptr) return invalid_argument("sample: a row has no parameters");
    SLUICE_RETURN_IF_ERROR(validate_sampling(*row.params, v));
    if (!needs_adjustment(row)) continue;
    SLUICE_RETURN_IF_ERROR(check_ids("prompt", row.prompt, v));
    SLUICE_RETURN_IF_ERROR(check_ids("output", row.output, v));
  }
  return ok_status();
}

// Scratch of one worker: a row's adjusted logits and their marks.
struct Scratch {
  float* logits = nullptr;
  int32_t* marks = nullptr;
};

void fill_logprobs(const SampleKernel& kernel, TopkKernel* topk, const float* logits, int64_t v,
                   SampleRow& row) {
  const float max = kernel.max(logits, v);
  const int64_t n = std::min<int64_t>(row.params->logprobs, v);
  int32_t ids[kMostLogprobs];
  float values[kMostLogprobs];
  TopkRows best;
  best.x = logits;
  best.rows = 1;
  best.n = v;
  best.k = n;
  best.ids = ids;
  best.values = values;
  if (n > 0) topk(best);
  set_logprobs(logits[row.token], max, kernel.exp_sum(logits, v, max), ids, values, n, row);
}

void sample_row(const SampleKernel& kernel, TopkKernel* topk, const float* logits, int64_t v,
                const Scratch& scratch, SampleRow& row) {
  const float* adjusted = logits;
  if (needs_adjustment(row)) {
    adjust_logits(row, logits, v, scratch.marks, scratch.logits);
    adjusted = scratch.logits;
  }
  row.token = static_cast<int32_t>(choose(kernel, adjusted, v, choice_rule(row), nullptr));
  row.logprob = 0.0f;
  row.top.clear();
  if (row.params->logprobs >= 0) fill_logprobs(kernel, topk, logits, v, row);
}

}  // namespace

std::span<const Kernel<const SampleKernel>> sample_kernels() {
  return kKernels;
}

Status validate_sampling(const SamplingParams& p, int64_t vocabulary) {
  const auto range = [](const char* name, float low, float high, float got) {
    return invalid_argument("{}: expected {} to {}, got {}", name, low, high, got);
  };
  if (!within(p.temperature, 0, 100)) return range("temperature", 0, 100, p.temperature);
  if (p.top_k < -1)
    return invalid_argument("top_k: expected -1 or 0 (off) or more, got {}", p.top_k);
  if (!within(p.top_p, 0, 1)) return range("top_p", 0, 1, p.top_p);
  if (!within(p.min_p, 0, 1)) return range("min_p", 0, 1, p.min_p);
  if (!(p.repetition_penalty > 0) || !(p.repetition_penalty <= 10))
    return invalid_argument("repetition_penalty: expected above 0 and at most 10, got {}",
                            p.repetition_penalty);
  if (!within(p.presence_penalty, -2, 2))
    return range("presence_penalty", -2, 2, p.presence_penalty);
  if (!within(p.frequency_penalty, -2, 2))
    return range("frequency_penalty", -2, 2, p.frequency_penalty);
  if (p.logprobs < -1 || p.logprobs > kMostLogprobs)
    return invalid_argument("logprobs: expected -1 (none) to {}, got {}", kMostLogprobs,
                            p.logprobs);
  for (const auto& [id, bias] : p.logit_bias) {
    if (id < 0 || id >= vocabulary)
      return invalid_argument("logit_bias: expected an id in [0, {}), got {}", vocabulary, id);
    if (!within(bias, -100, 100)) return range("logit_bias", -100, 100, bias);
  }
  return ok_status();
}

size_t sample_workspace_bytes(int threads, int64_t max_vocabulary) {
  return static_cast<size_t>(threads) * 2 *
         WorkspaceCarver::padded(static_cast<size_t>(max_vocabulary) * sizeof(float));
}

SampleMemory sample_gpu_bytes(int64_t rows, int64_t max_vocabulary, int64_t adjusted,
                              int64_t listed) {
  const SampleBatch b = lay_out({rows, max_vocabulary, adjusted, listed, listed,
                                 std::min<int64_t>(kMostLogprobs, max_vocabulary)},
                                nullptr);
  return {b.bytes, std::max(b.uploaded, b.bytes - b.results)};
}

Status sample(const ExecContext& context, const SampleArgs& args, Workspace workspace) {
  SLUICE_RETURN_IF_ERROR(check(args));
  const auto* kernel = select_kernel(sample_kernels(), context.isa, "f32", "none", "mass30");
  const auto* topk = select_kernel(topk_kernels(), context.isa, "f32", "none", "exact");
  if (kernel == nullptr || topk == nullptr) return no_kernel("sample", context.isa);
  if (is_cuda(context.isa)) return sample_on_gpu(context, *kernel->run, topk->run, args, workspace);
  const int64_t t = args.logits.rows, v = args.logits.cols;
  const int workers = context.pool != nullptr ? context.pool->size() : 1;
  std::vector<std::byte> own;
  if (workspace.bytes < sample_workspace_bytes(workers, v) &&
      std::any_of(args.rows.begin(), args.rows.end(), needs_adjustment)) {
    own.resize(sample_workspace_bytes(workers, v) + 64);
    const uintptr_t at = reinterpret_cast<uintptr_t>(own.data());
    workspace = {own.data() + (64 - at % 64) % 64, sample_workspace_bytes(workers, v)};
  }
  WorkspaceCarver carver(workspace);
  std::vector<Scratch> scratch(static_cast<size_t>(workers));
  for (Scratch& s : scratch) {
    s.logits = carver.take<float>(v);
    s.marks = carver.take<int32_t>(v);
  }
  const auto one = [&](int64_t r, int worker) {
    sample_row(*kernel->run, topk->run, args.logits.row(r), v, scratch[static_cast<size_t>(worker)],
               args.rows[static_cast<size_t>(r)]);
  };
  if (context.pool != nullptr) {
    context.pool->parallel_for(t, 1, one);
  } else {
    const ScopedFloatEnv env;
    for (int64_t r = 0; r < t; ++r) one(r, 0);
  }
  return ok_status();
}

float philox_uniform(uint64_t seed, uint64_t position) {
  return static_cast<float>(philox_bits24(seed, position)) * 0x1p-24f;
}

}  // namespace sluice
