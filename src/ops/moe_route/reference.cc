// Scalar truth, step by step as the contract writes it, over the rules of row.h.
#include "base/fp.h"
#include "ops/moe_route/kernels.h"
#include "ops/moe_route/row.h"

namespace sluice {
namespace {

struct Scalar {};

float widen(const float* p) {
  return *p;
}
float widen(const bf16* p) {
  return static_cast<float>(*p);
}
struct Half {
  uint16_t bits;
};
float widen(const Half* p) {
  return f16_to_f32(p->bits);
}

struct Row {
  const MoeRouteTask* task = nullptr;
  int32_t* ids = nullptr;
  float* weights = nullptr;
  bool all_finite = true;
  float logits[kMaxExperts];
  float score[kMaxExperts];   // p, or the logit for kSoftmaxSelected
  float select[kMaxExperts];  // what competes; -infinity comes last
};

template <class T>
void load_row(const T* from, Row& row) {
  row.all_finite = true;
  for (int64_t i = 0; i < row.task->experts; ++i) {
    row.logits[i] = route::rounded<Scalar>(widen(from + i), row.task->rule.rounding.logits);
    row.all_finite = row.all_finite && route::is_finite<Scalar>(row.logits[i]);
  }
}

void score_row(Row& row) {
  const MoeRouteTask& task = *row.task;
  const int64_t e = task.experts;
  const bool softmax = task.rule.score == RouteScore::kSoftmaxAll;
  const bool round = task.rule.rounding.scores && task.rule.score != RouteScore::kSoftmaxSelected;
  if (softmax) route::softmax_finite<Scalar>(row.logits, e, row.score);
  for (int64_t i = 0; i < e; ++i) {
    const float l = row.logits[i];
    if (!softmax)
      row.score[i] =
          route::is_finite<Scalar>(l) ? route::score_of<Scalar>(task.rule.score, l) : 0.0f;
    row.score[i] = route::rounded<Scalar>(row.score[i], round);
    row.select[i] = route::select_value<Scalar>(task.rule, l, row.score[i], task.selection_bias, i);
  }
}

// Experts outside the best groups come last.
void drop_groups(Row& row) {
  const RouteGroups& groups = row.task->rule.groups;
  if (groups.kept == groups.count) return;
  const int64_t each = row.task->experts / groups.count;
  float score[kMaxExperts];
  int32_t best[kMaxExperts];
  for (int64_t g = 0; g < groups.count; ++g)
    score[g] = route::group_score<Scalar>(groups.score, row.select + g * each, each);
  const int64_t chosen = route::take_largest<Scalar>(score, groups.count, groups.kept, best);
  route::fill_places<Scalar>(chosen, groups.kept, best);
  bool kept[kMaxExperts] = {};
  for (int64_t g = 0; g < groups.kept; ++g) kept[best[g]] = true;
  for (int64_t i = 0; i < row.task->experts; ++i)
    if (!kept[i / each]) row.select[i] = route::minus_infinity<Scalar>();
}

// Scores of the chosen experts; places that were only filled weigh nothing.
void pick_scores(Row& row, int64_t chosen) {
  const MoeRouteTask& task = *row.task;
  float selected[kMaxExpertsPerToken] = {};
  for (int64_t k = 0; k < task.k; ++k) row.weights[k] = 0.0f;
  for (int64_t k = 0; k < chosen; ++k) selected[k] = row.score[row.ids[k]];
  if (task.rule.score == RouteScore::kSoftmaxSelected) {
    route::softmax_finite<Scalar>(selected, chosen, row.weights);
    for (int64_t k = 0; k < chosen; ++k)
      row.weights[k] = route::rounded<Scalar>(row.weights[k], task.rule.rounding.scores);
  } else {
    for (int64_t k = 0; k < chosen; ++k) row.weights[k] = selected[k];
  }
}

template <class T>
uint32_t append_shared(const T* from, Row& row) {
  const MoeRouteTask& task = *row.task;
  const bool round = task.rule.rounding.logits;
  uint32_t flags = 0;
  for (int64_t s = 0; s < task.rule.shared; ++s) {
    float w = 1.0f;
    if (task.rule.shared_weight == SharedWeight::kSigmoid) {
      const float l = route::rounded<Scalar>(widen(from + task.experts + s), round);
      const bool usable = route::is_finite<Scalar>(l);
      w = usable ? scalar::sigmoid(l) : 0.0f;
      if (!usable) flags = route::kNonFiniteRow;
      w = route::rounded<Scalar>(w, task.rule.rounding.scores || task.rule.rounding.out);
    }
    row.ids[task.k + s] = static_cast<int32_t>(task.experts + s);
    row.weights[task.k + s] = w;
  }
  return flags;
}

template <class T>
RouteCounts route_rows(const MoeRouteTask& task) {
  RouteCounts counts;
  Row row;
  row.task = &task;
  for (int64_t t = task.begin; t < task.end; ++t) {
    const T* from = static_cast<const T*>(task.logits) + t * task.stride;
    row.ids = task.ids + t * task.out_stride;
    row.weights = task.weights + t * task.out_stride;
    load_row(from, row);
    score_row(row);
    drop_groups(row);
    const int64_t chosen = route::take_largest<Scalar>(row.select, task.experts, task.k, row.ids);
    route::fill_places<Scalar>(chosen, task.k, row.ids);
    pick_scores(row, chosen);
    uint32_t flags =
        route::weigh<Scalar>(task.rule, task.per_expert_scale, row.ids, task.k, row.weights);
    flags |= append_shared(from, row);
    counts.non_finite_rows += !row.all_finite || (flags & route::kNonFiniteRow) != 0 ? 1 : 0;
    counts.zero_rows += (flags & route::kZeroRow) != 0 ? 1 : 0;
  }
  return counts;
}

}  // namespace

RouteCounts moe_route_f32_reference(const MoeRouteTask& task) {
  return route_rows<float>(task);
}
RouteCounts moe_route_bf16_reference(const MoeRouteTask& task) {
  return route_rows<bf16>(task);
}
RouteCounts moe_route_f16_reference(const MoeRouteTask& task) {
  return route_rows<Half>(task);
}

}  // namespace sluice
