#include "engine/runner.h"

#include <algorithm>

namespace sluice {
namespace {

// The strongest bias that sampling accepts: no model's logits lie that far apart.
constexpr float kBan = -100.0f;

// The smallest power of two that holds a decode step's rows; 0 for any other step.
int64_t bucket_of(std::span<const Chunk> plan) {
  for (const Chunk& c : plan)
    if (c.count != 1 || !c.draws() || c.score_from() < c.score_to()) return 0;
  int64_t bucket = 1;
  while (bucket < static_cast<int64_t>(plan.size())) bucket *= 2;
  return plan.empty() ? 0 : bucket;
}

// On a device: rows with bias or penalties, and the ids that they list, of a step that takes no
// memory of its own; each such row holds two arrays of the vocabulary's length.
constexpr int64_t kAdjustedRows = 4, kListedIds = 1 << 15;

void ban(SamplingParams& params, std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    std::erase_if(params.logit_bias, [id](const auto& b) { return b.first == id; });
    params.logit_bias.emplace_back(id, kBan);
  }
}

}  // namespace

Result<std::unique_ptr<Runner>> Runner::create(Runtime& runtime, const Model& model,
                                               const KvBlocks& kv, const BatchCapacity& capacity,
                                               Isa isa) {
  if (is_cuda(isa) || is_cuda(runtime.isa()) ? isa != runtime.isa() : isa > runtime.isa())
    return unimplemented("engine: {} kernels asked for, this machine offers up to {}",
                         isa_name(isa), isa_name(runtime.isa()));
  auto runner = std::make_unique<Runner>();
  runner->context_ = runtime.context();
  runner->context_.isa = isa;
  runner->device_ = &runtime.device();
  runner->most_rows_ = std::min(capacity.sequences, capacity.logit_rows);
  runner->model_ = &model;
  runner->eos_ids_ = model.spec.eos_ids;
  for (const int32_t id : model.generation.eos_ids)
    if (std::find(runner->eos_ids_.begin(), runner->eos_ids_.end(), id) == runner->eos_ids_.end())
      runner->eos_ids_.push_back(id);
  // A configuration may name ids beyond its own vocabulary; they can never be drawn.
  std::erase_if(runner->eos_ids_,
                [&](int32_t id) { return id < 0 || id >= model.spec.vocabulary; });
  SLUICE_ASSIGN_OR_RETURN(runner->batch_, BatchBuilder::create(runtime.device(), kv, capacity));
  SLUICE_ASSIGN_OR_RETURN(
      runner->state_, ForwardState::create(runtime, model, capacity.tokens, capacity.logit_rows));
  SLUICE_RETURN_IF_ERROR(runner->allocate_sampling());
  return runner;
}

Status Runner::allocate_sampling() {
  const int64_t vocabulary = model_->spec.vocabulary;
  const int workers = context_.pool != nullptr ? context_.pool->size() : 1;
  size_t bytes = sample_workspace_bytes(workers, vocabulary);
  if (is_cuda(context_.isa)) {
    const SampleMemory need =
        sample_gpu_bytes(most_rows_, vocabulary, std::min(most_rows_, kAdjustedRows), kListedIds);
    bytes = need.workspace;
    staging_bytes_ = need.staging;
    SLUICE_ASSIGN_OR_RETURN(staging_, device_->allocate_staging(need.staging, "sampling"));
  }
  SLUICE_ASSIGN_OR_RETURN(sampling_, device_->allocate(bytes, "sampling"));
  return ok_status();
}

Status Runner::run(std::span<const Chunk> plan, const Tap* tap) {
  rows_.clear();
  host_logits_.clear();
  SLUICE_RETURN_IF_ERROR(compute(plan, tap));
  // A mapped embedding whose file was truncated meanwhile reads as zeros.
  if (model_->source != nullptr) SLUICE_RETURN_IF_ERROR(model_->source->health());
  SLUICE_RETURN_IF_ERROR(fetch_logits());
  return draw();
}

Status Runner::compute(std::span<const Chunk> plan, const Tap* tap) {
  const int64_t bucket = is_cuda(context_.isa) && tap == nullptr ? bucket_of(plan) : 0;
  const bool padded = bucket > 0 && bucket <= most_rows_;
  SLUICE_ASSIGN_OR_RETURN(const Batch* batch,
                          batch_->build(plan, context_.stream, padded ? bucket : 0));
  if (padded && context_.isa == Isa::kCuda) return replay(*batch, bucket);
  return forward(context_, *model_, *batch, *state_, tap);
}

Status Runner::replay(const Batch& batch, int64_t bucket) {
  Recorded& step = graphs_[bucket];
  if (step.graph == nullptr) {
    const RouteSortStats before = state_->routes();
    SLUICE_RETURN_IF_ERROR(context_.stream->begin_capture());
    const Status recorded = forward(context_, *model_, batch, *state_, nullptr);
    Result<std::unique_ptr<Graph>> captured = context_.stream->end_capture();
    SLUICE_RETURN_IF_ERROR(recorded);
    SLUICE_RETURN_IF_ERROR(captured.status());
    step.graph = std::move(captured).value();
    const RouteSortStats after = state_->routes();
    step.routes = {after.fused_calls - before.fused_calls,
                   after.chained_calls - before.chained_calls};
  } else {
    state_->replayed(bucket, step.routes);
  }
  return step.graph->launch(*context_.stream);
}

// Scored rows are read by the caller, on the host.
Status Runner::fetch_logits() {
  if (device_->kind() == DeviceKind::kCpu) return ok_status();
  if (context_.stream != nullptr) SLUICE_RETURN_IF_ERROR(context_.stream->synchronize());
  if (batch_->scored().empty()) return ok_status();
  const ConstMatrixF32 logits = state_->logits();
  host_logits_.resize(static_cast<size_t>(logits.rows * logits.cols));
  return device_->download(host_logits_.data(), reinterpret_cast<const std::byte*>(logits.data),
                           host_logits_.size() * sizeof(float), nullptr);
}

Status Runner::draw() {
  const std::span<Sequence* const> drawing = batch_->drawing();
  if (drawing.empty()) return ok_status();
  rows_.resize(drawing.size());
  banned_.clear();
  banned_.reserve(drawing.size());
  for (size_t i = 0; i < drawing.size(); ++i) {
    const Sequence& s = *drawing[i];
    const SamplingParams* params = &s.request.sampling;
    if (s.generated() < s.request.min_new_tokens) {
      banned_.push_back(*params);
      if (!s.request.ignore_eos) ban(banned_.back(), eos_ids_);
      ban(banned_.back(), s.request.stop_ids);
      params = &banned_.back();
    }
    rows_[i] = {
        .params = params, .position = s.length(), .prompt = s.prompt(), .output = s.output()};
  }
  ConstMatrixF32 logits = state_->logits();
  logits.rows = static_cast<int64_t>(rows_.size());
  return sample(context_,
                {.logits = logits, .rows = rows_, .staging = {staging_.get(), staging_bytes_}},
                {sampling_.data(), sampling_.bytes()});
}

}  // namespace sluice
