#include "cli/score_results.h"

#include <algorithm>

namespace sluice {
namespace {

template <class T>
void place_row(std::vector<T>& matrix, int64_t rows, int64_t row, const T* values, int64_t cols) {
  if (matrix.empty()) matrix.resize(static_cast<size_t>(rows * cols));
  std::copy_n(values, cols, matrix.begin() + row * cols);
}

template <class T>
OutputTensor tensor_of(const std::string& name, const std::vector<T>& data,
                       const std::vector<int64_t>& shape) {
  return {.name = name,
          .is_f32 = std::is_same_v<T, float>,
          .shape = shape,
          .data = data.data(),
          .bytes = data.size() * sizeof(T)};
}

}  // namespace

void ScoreCollector::expect(RequestId id, int64_t tokens, bool trace) {
  index_[id] = lists_.size();
  lists_.push_back({.tokens = tokens});
  ScoredList& list = lists_.back();
  list.logits.resize(static_cast<size_t>(tokens * spec_.vocabulary));
  if (trace) list.hidden.resize(spec_.layers.size() + 1);
}

void ScoreCollector::take(const StepOutput& step) {
  const ConstMatrixF32 logits = engine_.logits();
  for (const ScoredRow& r : step.scored) {
    ScoredList& list = lists_[index_.at(r.id)];
    place_row(list.logits, list.tokens, r.position, logits.row(r.row), logits.cols);
  }
  for (const Event& e : step.events)
    if (e.has_token) lists_[index_.at(e.id)].greedy.push_back(e.token);
}

Tap ScoreCollector::tap() {
  Tap tap;
  // Rows beyond the input belong to its continuation and are not traced.
  tap.hidden = [this](int stage, ConstMatrixF32 hidden) {
    const std::span<const RowOwner> owners = engine_.owners();
    for (int64_t r = 0; r < hidden.rows; ++r) {
      const RowOwner& owner = owners[static_cast<size_t>(r)];
      ScoredList& list = lists_[index_.at(owner.id)];
      if (owner.position < list.tokens)
        place_row(list.hidden[static_cast<size_t>(stage)], list.tokens, owner.position,
                  hidden.row(r), hidden.cols);
    }
  };
  tap.router = [this](int layer, int64_t k, std::span<const int32_t> ids,
                      std::span<const float> weights) {
    const std::span<const RowOwner> owners = engine_.owners();
    for (size_t r = 0; r < owners.size(); ++r) {
      ScoredList& list = lists_[index_.at(owners[r].id)];
      if (owners[r].position >= list.tokens) continue;
      ScoredList::Router& router = list.routers[layer];
      router.k = k;
      const size_t first = r * static_cast<size_t>(k);
      place_row(router.ids, list.tokens, owners[r].position, ids.data() + first, k);
      place_row(router.weights, list.tokens, owners[r].position, weights.data() + first, k);
    }
  };
  return tap;
}

std::vector<OutputTensor> ScoreCollector::tensors(bool ragged) const {
  std::vector<OutputTensor> out;
  for (size_t i = 0; i < lists_.size(); ++i) {
    const ScoredList& list = lists_[i];
    const std::string prefix = ragged ? fmt::format("seq.{}.", i) : "";
    out.push_back(tensor_of(prefix + "logits", list.logits, {list.tokens, spec_.vocabulary}));
    for (size_t n = 0; n < list.hidden.size(); ++n)
      out.push_back(
          tensor_of(fmt::format("{}hidden.{}", prefix, n), list.hidden[n], {list.tokens, spec_.d}));
    for (const auto& [layer, r] : list.routers) {
      const std::string name = fmt::format("{}router.{}.", prefix, layer);
      out.push_back(tensor_of(name + "ids", r.ids, {list.tokens, r.k}));
      out.push_back(tensor_of(name + "weights", r.weights, {list.tokens, r.k}));
    }
    if (!list.greedy.empty())
      out.push_back(
          tensor_of(prefix + "greedy", list.greedy, {static_cast<int64_t>(list.greedy.size())}));
  }
  return out;
}

}  // namespace sluice
