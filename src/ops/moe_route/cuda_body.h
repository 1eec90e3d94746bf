// The CUDA kernel of moe_route: a warp per token, its row in shared memory. Every K-th choice is a
// fold over the warp of (value, lowest id); softmax sums are partial j in lane j, the tree of
// simd/scalar.h. What follows the selection is row.h's, on one lane.
#pragma once

#include "base/fp.h"
#include "device/block.h"
#include "ops/moe_route/kernels.h"
#include "ops/moe_route/row.h"
#include "tensor/view.h"

namespace sluice::cuda {

struct RouteTag {};
struct F16 {
  uint16_t bits;
};
SLUICE_HD inline float widened(const float* p) {
  return *p;
}
SLUICE_HD inline float widened(const bf16* p) {
  return static_cast<float>(*p);
}
SLUICE_HD inline float widened(const F16* p) {
  return f16_to_f32(p->bits);
}

// Orders floats as > does, equal zeros included, and the lower index before the higher.
SLUICE_HD inline uint64_t choice_key(float v, int64_t index) {
  const uint32_t b = f32_to_bits(v + 0.0f);
  const uint32_t order = (b >> 31) != 0 ? ~b : b | 0x80000000u;
  return (uint64_t{order} << 32) | (0xffffffffu - static_cast<uint32_t>(index));
}
SLUICE_HD inline int32_t index_of(uint64_t key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}
// Of everything above -infinity.
SLUICE_HD inline bool is_choice(uint64_t key) {
  return (key >> 32) > (~0xff800000u);
}

SLUICE_HD inline bool drops_groups(const RouteRule& rule) {
  return rule.groups.kept < rule.groups.count;
}
// Words of shared memory that a warp needs.
SLUICE_HD inline int64_t route_words(const MoeRouteTask& task) {
  return 2 * task.experts + 2 * kMaxExpertsPerToken +
         (drops_groups(task.rule) ? 2 * task.rule.groups.count : 0);
}
// Warps of a block that route: as many as fit the shared memory that needs no asking, one at least.
inline int64_t route_warps(const MoeRouteTask& task, int64_t most) {
  const int64_t fit = (int64_t{48} << 10) / (route_words(task) * 4);
  return fit < 1 ? 1 : fit < most ? fit : most;
}

// Rows by the first `warps` warps of a block; each thread calls with its own number.
template <class T, class Block>
class RouteWarps {
 public:
  SLUICE_HD RouteWarps(Block& block, const MoeRouteTask& task, int64_t warps)
      : block_(block), task_(task), warps_(warps) {}

  // Rows first, first + 1 ... of the task, one per warp.
  SLUICE_HD void route(int64_t first) {
    first_ = first;
    rows_ = task_.end;
    if (task_.live_tokens != nullptr) {
      const int64_t live = *task_.live_tokens;
      if (live < rows_) rows_ = live;
    }
    typename Block::template PerThread<uint32_t> flags(block_);
    typename Block::template PerThread<int32_t> chosen(block_);
    score_rows(flags);
    if (drops_groups(task_.rule)) drop_groups(chosen);
    take_largest(
        task_.experts, task_.k, [&](int t) { return row(t).select; },
        [&](int t) { return row(t).ids; }, chosen);
    weigh(flags, chosen);
    write(flags);
  }

 private:
  struct Row {
    float *score, *select;  // as in reference.cc
    int32_t* ids;           // [64]
    float* weights;         // [64]
    float* groups;
    int32_t* best;
  };
  SLUICE_HD Row row(int t) const {
    float* at = block_.template shared<float>() + t / kWarp * route_words(task_);
    const int64_t e = task_.experts;
    Row r;
    r.score = at;
    r.select = at + e;
    r.weights = at + 2 * e;
    r.ids = reinterpret_cast<int32_t*>(r.weights + kMaxExpertsPerToken);
    r.groups = r.weights + 2 * kMaxExpertsPerToken;
    r.best = reinterpret_cast<int32_t*>(r.groups + task_.rule.groups.count);
    return r;
  }
  SLUICE_HD int64_t token(int t) const { return first_ + t / kWarp; }
  SLUICE_HD bool active(int t) const { return t / kWarp < warps_ && token(t) < rows_; }
  SLUICE_HD float logit(int t, int64_t i) const {
    const T* from = static_cast<const T*>(task_.logits) + token(t) * task_.stride;
    return route::rounded<RouteTag>(widened(from + i), task_.rule.rounding.logits);
  }
  // One phase over the active warps; `f` takes the thread and its lane.
  template <class F>
  SLUICE_HD void each(const F& f) {
    block_.each([&](int t) {
      if (active(t)) f(t, t % kWarp);
    });
  }

  // x = softmax of the finite ones of x[0, n), others 0; zeros when none is.
  template <class Values, class Count>
  SLUICE_HD void softmax(const Values& x, const Count& n) {
    typename Block::template PerThread<float> top(block_), sum(block_);
    each([&](int t, int lane) {
      float m = route::minus_infinity<RouteTag>();
      for (int64_t i = lane; i < n(t); i += kWarp)
        if (route::is_finite<RouteTag>(x(t)[i])) m = scalar::max(m, x(t)[i]);
      top[t] = m;
    });
    block_.warp_fold(top, [](float a, float b) { return scalar::max(a, b); });
    each([&](int t, int lane) {
      float partial = 0.0f;
      for (int64_t i = lane; i < n(t); i += kWarp) {
        const float l = x(t)[i];
        const float p = route::is_finite<RouteTag>(l) ? scalar::exp(l - top[t]) : 0.0f;
        x(t)[i] = p;
        partial = partial + p;
      }
      sum[t] = partial;
    });
    block_.warp_sum(sum);
    each([&](int t, int lane) {
      if (!route::is_finite<RouteTag>(top[t])) return;
      for (int64_t i = lane; i < n(t); i += kWarp) x(t)[i] = x(t)[i] / sum[t];
    });
  }

  SLUICE_HD void score_rows(typename Block::template PerThread<uint32_t>& flags) {
    const RouteRule& rule = task_.rule;
    const bool all = rule.score == RouteScore::kSoftmaxAll;
    each([&](int t, int lane) {
      for (int64_t i = lane; i < task_.experts; i += kWarp) {
        const float l = logit(t, i);
        if (!route::is_finite<RouteTag>(l)) flags[t] |= route::kNonFiniteRow;
        row(t).score[i] = l;
      }
    });
    if (all) softmax([&](int t) { return row(t).score; }, [&](int) { return task_.experts; });
    const bool round = rule.rounding.scores && rule.score != RouteScore::kSoftmaxSelected;
    each([&](int t, int lane) {
      const Row r = row(t);
      for (int64_t i = lane; i < task_.experts; i += kWarp) {
        const float l = logit(t, i);
        float s = r.score[i];
        if (!all)
          s = route::is_finite<RouteTag>(l) ? route::score_of<RouteTag>(rule.score, l) : 0.0f;
        s = route::rounded<RouteTag>(s, round);
        r.score[i] = s;
        r.select[i] = route::select_value<RouteTag>(rule, l, s, task_.selection_bias, i);
      }
    });
  }

  // row.h's take_largest and fill_places for every warp's x[0, n).
  template <class Values, class Ids>
  SLUICE_HD void take_largest(int64_t n, int64_t k, const Values& x, const Ids& ids,
                              typename Block::template PerThread<int32_t>& chosen) {
    typename Block::template PerThread<uint64_t> best(block_);
    each([&](int t, int) { chosen[t] = 0; });
    for (int64_t j = 0; j < k; ++j) {
      each([&](int t, int lane) {
        uint64_t most = 0;
        if (chosen[t] == j)
          for (int64_t i = lane; i < n; i += kWarp) {
            const uint64_t key = choice_key(x(t)[i], i);
            if (key > most) most = key;
          }
        best[t] = most;
      });
      block_.warp_fold(best, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
      each([&](int t, int lane) {
        if (!is_choice(best[t])) return;
        ++chosen[t];
        if (lane != 0) return;
        ids(t)[j] = index_of(best[t]);
        x(t)[index_of(best[t])] = route::minus_infinity<RouteTag>();
      });
    }
    each([&](int t, int lane) {
      if (lane == 0) route::fill_places<RouteTag>(chosen[t], k, ids(t));
    });
  }

  SLUICE_HD void drop_groups(typename Block::template PerThread<int32_t>& chosen) {
    const RouteGroups& groups = task_.rule.groups;
    const int64_t size = static_cast<uint32_t>(task_.experts) / static_cast<uint32_t>(groups.count);
    each([&](int t, int lane) {
      const Row r = row(t);
      for (int64_t g = lane; g < groups.count; g += kWarp)
        r.groups[g] = route::group_score<RouteTag>(groups.score, r.select + g * size, size);
    });
    take_largest(
        groups.count, groups.kept, [&](int t) { return row(t).groups; },
        [&](int t) { return row(t).best; }, chosen);
    each([&](int t, int lane) {
      for (int64_t g = lane; g < groups.count; g += kWarp) row(t).groups[g] = 0.0f;
    });
    each([&](int t, int lane) {
      for (int64_t j = lane; j < groups.kept; j += kWarp) row(t).groups[row(t).best[j]] = 1.0f;
    });
    each([&](int t, int lane) {
      const Row r = row(t);
      for (int64_t g = lane; g < groups.count; g += kWarp)
        for (int64_t i = g * size; r.groups[g] == 0.0f && i < (g + 1) * size; ++i)
          r.select[i] = route::minus_infinity<RouteTag>();
    });
  }

  SLUICE_HD void weigh(typename Block::template PerThread<uint32_t>& flags,
                       typename Block::template PerThread<int32_t>& chosen) {
    const RouteRule& rule = task_.rule;
    each([&](int t, int lane) {
      const Row r = row(t);
      for (int64_t j = lane; j < task_.k; j += kWarp)
        r.weights[j] = j < chosen[t] ? r.score[r.ids[j]] : 0.0f;
    });
    if (rule.score == RouteScore::kSoftmaxSelected) {
      softmax([&](int t) { return row(t).weights; }, [&](int t) { return chosen[t]; });
      each([&](int t, int lane) {
        float* w = row(t).weights;
        for (int64_t j = lane; j < chosen[t]; j += kWarp)
          w[j] = route::rounded<RouteTag>(w[j], rule.rounding.scores);
      });
    }
    each([&](int t, int lane) {
      const Row r = row(t);
      if (lane == 0)
        flags[t] |= route::weigh<RouteTag>(rule, task_.per_expert_scale, r.ids, task_.k, r.weights);
    });
  }

  SLUICE_HD float shared_weight(int t, int64_t s, uint32_t& flags) const {
    const RouteRounding& rounding = task_.rule.rounding;
    if (task_.rule.shared_weight == SharedWeight::kOne) return 1.0f;
    const float l = logit(t, task_.experts + s);
    const bool usable = route::is_finite<RouteTag>(l);
    if (!usable) flags |= route::kNonFiniteRow;
    return route::rounded<RouteTag>(usable ? scalar::sigmoid(l) : 0.0f,
                                    rounding.scores || rounding.out);
  }

  SLUICE_HD void write(typename Block::template PerThread<uint32_t>& flags) {
    each([&](int t, int lane) {
      const Row r = row(t);
      int32_t* ids = task_.ids + token(t) * task_.out_stride;
      float* weights = task_.weights + token(t) * task_.out_stride;
      for (int64_t j = lane; j < task_.k; j += kWarp) {
        ids[j] = r.ids[j];
        weights[j] = r.weights[j];
      }
      for (int64_t s = lane; s < task_.rule.shared; s += kWarp) {
        ids[task_.k + s] = static_cast<int32_t>(task_.experts + s);
        weights[task_.k + s] = shared_weight(t, s, flags[t]);
      }
    });
    block_.warp_fold(flags, [](uint32_t a, uint32_t b) { return a | b; });
    each([&](int t, int lane) {
      if (lane != 0) return;
      if (task_.non_finite_rows != nullptr && (flags[t] & route::kNonFiniteRow) != 0)
        Block::atomic_add(task_.non_finite_rows, int64_t{1});
      if (task_.zero_rows != nullptr && (flags[t] & route::kZeroRow) != 0)
        Block::atomic_add(task_.zero_rows, int64_t{1});
    });
  }

  Block& block_;
  const MoeRouteTask& task_;
  int64_t warps_, first_ = 0, rows_ = 0;
};

template <class T>
struct RouteBody {
  static constexpr int kThreads = 256;
  MoeRouteTask task;
  int64_t warps;

  explicit RouteBody(const MoeRouteTask& t) : task(t), warps(route_warps(t, kThreads / kWarp)) {}
  int64_t blocks() const { return ceil_div(task.end - task.begin, warps); }
  size_t shared_bytes() const { return static_cast<size_t>(warps * route_words(task)) * 4; }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    RouteWarps<T, Block>(block, task, warps).route(task.begin + block.index() * warps);
  }
};

}  // namespace sluice::cuda
