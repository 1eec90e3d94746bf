// Scalar truth, step by step as the contract writes it.
#include <cmath>

#include "ops/moe_route/kernels.h"
#include "simd/scalar.h"

namespace sluice {
namespace {

struct Row {
  const MoeRouteTask* task = nullptr;
  const float* logits = nullptr;
  int32_t* ids = nullptr;
  float* weights = nullptr;
  float score[kMaxExperts];   // p, or the logit for kSoftmaxSelected
  float select[kMaxExperts];  // score + bias; -infinity marks what only fills up a row
};

// exp(l - max) of the finite ones of l, others 0; divided by their sum32. False: none is finite,
// and p is zeros.
bool softmax(const float* l, int64_t n, float* p) {
  float m = -INFINITY;
  for (int64_t i = 0; i < n; ++i)
    if (std::isfinite(l[i])) m = scalar::max(m, l[i]);
  for (int64_t i = 0; i < n; ++i) p[i] = 0.0f;
  if (!std::isfinite(m)) return false;
  scalar::Sum32 sum;
  for (int64_t i = 0; i < n; ++i) {
    p[i] = std::isfinite(l[i]) ? scalar::exp(l[i] - m) : 0.0f;
    sum.add(i, p[i]);
  }
  const float total = sum.total();
  for (int64_t i = 0; i < n; ++i) p[i] = p[i] / total;
  return true;
}

void score_row(Row& row) {
  const MoeRouteTask& task = *row.task;
  const int64_t e = task.experts;
  switch (task.rule.score) {
    case RouteScore::kSoftmaxAll:
      softmax(row.logits, e, row.score);
      break;
    case RouteScore::kSoftmaxSelected:
      for (int64_t i = 0; i < e; ++i) row.score[i] = row.logits[i];
      break;
    case RouteScore::kSigmoid:
      for (int64_t i = 0; i < e; ++i)
        row.score[i] = std::isfinite(row.logits[i]) ? scalar::sigmoid(row.logits[i]) : 0.0f;
      break;
  }
  for (int64_t i = 0; i < e; ++i) {
    const float s =
        task.selection_bias != nullptr ? row.score[i] + task.selection_bias[i] : row.score[i];
    row.select[i] = std::isfinite(row.logits[i]) && std::isfinite(s) ? s : -INFINITY;
  }
}

// K times the largest of what is left, the lowest id among equals; what is not finite comes last.
void select_experts(Row& row) {
  bool taken[kMaxExperts] = {};
  for (int64_t k = 0; k < row.task->k; ++k) {
    int64_t best = -1;
    for (int64_t i = 0; i < row.task->experts; ++i)
      if (!taken[i] && (best < 0 || row.select[i] > row.select[best])) best = i;
    taken[best] = true;
    row.ids[k] = static_cast<int32_t>(best);
  }
}

void weigh(Row& row) {
  const MoeRouteTask& task = *row.task;
  float* w = row.weights;
  float selected[kMaxExpertsPerToken];
  for (int64_t k = 0; k < task.k; ++k) selected[k] = row.score[row.ids[k]];
  if (task.rule.score != RouteScore::kSoftmaxSelected) {
    for (int64_t k = 0; k < task.k; ++k) w[k] = selected[k];
  } else if (!softmax(selected, task.k, w)) {
    for (int64_t k = 0; k < task.k; ++k) w[k] = 1.0f / static_cast<float>(task.k);
  }
  if (task.rule.renormalise) {
    float sum = 0;
    for (int64_t k = 0; k < task.k; ++k) sum = sum + w[k];
    const float divisor = sum + task.rule.epsilon;
    for (int64_t k = 0; k < task.k; ++k)
      w[k] = divisor != 0 ? w[k] / divisor : 1.0f / static_cast<float>(task.k);
  }
  for (int64_t k = 0; k < task.k; ++k) {
    w[k] = w[k] * task.rule.routed_scale;
    if (task.per_expert_scale != nullptr) w[k] = w[k] * task.per_expert_scale[row.ids[k]];
  }
}

// Nothing to choose by: the first K experts share the token.
void share_evenly(Row& row) {
  for (int64_t k = 0; k < row.task->k; ++k) {
    row.ids[k] = static_cast<int32_t>(k);
    row.weights[k] = 1.0f / static_cast<float>(row.task->k);
  }
}

}  // namespace

int64_t moe_route_f32_reference(const MoeRouteTask& task) {
  int64_t non_finite_rows = 0;
  Row row;
  row.task = &task;
  for (int64_t t = task.begin; t < task.end; ++t) {
    row.logits = task.logits + t * task.stride;
    row.ids = task.ids + t * task.k;
    row.weights = task.weights + t * task.k;
    int64_t finite = 0;
    for (int64_t i = 0; i < task.experts; ++i) finite += std::isfinite(row.logits[i]) ? 1 : 0;
    non_finite_rows += finite < task.experts ? 1 : 0;
    if (finite == 0) {
      share_evenly(row);
      continue;
    }
    score_row(row);
    select_experts(row);
    weigh(row);
  }
  return non_finite_rows;
}

}  // namespace sluice
