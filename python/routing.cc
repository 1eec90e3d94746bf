// Routing and sorting under the names that vLLM, SGLang, AITER and MAX gave them.
#include <algorithm>

#include "expert_map.h"
#include "module.h"
#include "ops/moe_route/moe_route.h"
#include "ops/moe_sort/moe_sort.h"

namespace sluice::python {
namespace {

struct Routed {
  py::array_t<float> weights;
  py::array_t<int32_t> ids;
};

Routed route(Machine& machine, const py::array& gating, int64_t k, const RouteRule& rule,
             const py::object& bias) {
  MoeRouteArgs args;
  args.logits = logits(gating);
  args.rule = rule;
  args.k = k;
  if (!bias.is_none()) {
    const auto b = bias.cast<py::array>();
    if (b.size() != args.logits.cols)
      throw py::value_error(fmt::format("correction_bias: expected [E] = [{}], got [{}]",
                                        args.logits.cols, b.size()));
    args.selection_bias = contiguous<float>(b, "correction_bias");
  }
  if (k < 1 || k > args.logits.cols)
    throw py::value_error(fmt::format("topk: expected 1 to E = {}, got {}", args.logits.cols, k));
  const std::vector<py::ssize_t> shape = {gating.shape(0), k + rule.shared};
  Routed out{py::array_t<float>(shape), py::array_t<int32_t>(shape)};
  args.ids = writable(out.ids);
  args.weights = writable(out.weights);
  machine.run(0, [&](Runtime& r, Workspace) { return moe_route(r.context(), args); });
  return out;
}

py::tuple topk_softmax(Machine& machine, const py::array& gating, int64_t k, bool renormalize,
                       const py::object& bias, int64_t shared, const std::string& shared_scoring) {
  RouteRule rule;
  rule.renormalise = renormalize;
  rule.shared = shared;
  if (shared_scoring == "sigmoid")
    rule.shared_weight = SharedWeight::kSigmoid;
  else if (shared_scoring != "one")
    throw py::value_error("shared_scoring_func: expected one or sigmoid, got " + shared_scoring);
  const Routed out = route(machine, gating, k, rule, bias);
  // token_expert_indices: the row of (t, k) in a K-major expansion.
  py::array_t<int32_t> rows({out.ids.shape(0), static_cast<py::ssize_t>(k)});
  auto at = rows.mutable_unchecked<2>();
  for (py::ssize_t t = 0; t < at.shape(0); ++t)
    for (py::ssize_t i = 0; i < at.shape(1); ++i)
      at(t, i) = static_cast<int32_t>(i * at.shape(0) + t);
  return py::make_tuple(out.weights, out.ids, rows);
}

py::tuple topk_sigmoid(Machine& machine, const py::array& gating, int64_t k, bool renormalize,
                       const py::object& bias) {
  RouteRule rule;
  rule.score = RouteScore::kSigmoid;
  rule.select = bias.is_none() ? RouteSelect::kLogit : RouteSelect::kScore;
  rule.renormalise = renormalize;
  const Routed out = route(machine, gating, k, rule, bias);
  return py::make_tuple(out.weights, out.ids);
}

py::tuple topk_softplus_sqrt(Machine& machine, const py::array& gating, int64_t k, bool renormalize,
                             float scale, const py::object& bias) {
  RouteRule rule;
  rule.score = RouteScore::kSqrtSoftplus;
  rule.renormalise = renormalize;
  rule.routed_scale = scale;
  const Routed out = route(machine, gating, k, rule, bias);
  return py::make_tuple(out.weights, out.ids);
}

py::tuple grouped_topk(Machine& machine, const py::array& gating, int64_t k, bool renormalize,
                       int64_t groups, int64_t kept, const std::string& scoring,
                       const py::object& bias, float scale, float epsilon) {
  RouteRule rule;
  if (scoring == "softmax")
    rule.score = RouteScore::kSoftmaxAll;
  else if (scoring == "sigmoid")
    rule.score = RouteScore::kSigmoid;
  else
    throw py::value_error("scoring_func: expected softmax or sigmoid, got " + scoring);
  rule.renormalise = renormalize;
  rule.epsilon = epsilon;
  rule.routed_scale = scale;
  // Upstream's rule: the sum of the two best where a bias is given, else the best.
  rule.groups = {groups, kept, bias.is_none() ? GroupScore::kMax : GroupScore::kSumOf2};
  const Routed out = route(machine, gating, k, rule, bias);
  return py::make_tuple(out.weights, out.ids);
}

void require_block(int64_t block_size) {
  if (block_size < 1)
    throw py::value_error(fmt::format("block_size: expected 1 or more, got {}", block_size));
}

py::tuple moe_align_block_size(Machine& machine, const py::array& ids, int64_t block_size,
                               int64_t experts, const py::object& map) {
  require_rows(ids, "topk_ids", 2);
  MoeSortArgs args;
  args.ids = values<int32_t>(ids, "topk_ids");
  args.k = ids.shape(1);
  args.expert_map = expert_map(map, "expert_map", experts);
  args.experts = mapped_experts(args.expert_map, experts, "num_experts");
  require_block(block_size);
  args.block_size = block_size;
  const int64_t capacity = moe_sort_capacity(ids.size(), args.experts, block_size);
  std::vector<int32_t> starts(static_cast<size_t>(args.experts) + 1);
  py::array_t<int32_t> sorted(capacity), blocks(capacity / block_size), padded(1);
  args.starts = starts;
  args.sorted_pairs = writable(sorted);
  args.block_experts = writable(blocks);
  args.padded_rows = padded.mutable_data();
  args.fill_tails = false;
  std::fill(args.sorted_pairs.begin(), args.sorted_pairs.end(), static_cast<int32_t>(ids.size()));
  std::fill(args.block_experts.begin(), args.block_experts.end(), -1);
  machine.run(0, [&](Runtime& r, Workspace) { return moe_sort(r.context(), args); });
  return py::make_tuple(sorted, blocks, padded);
}

py::tuple moe_sorting(Machine& machine, const py::array& ids, const py::array& weights,
                      int64_t experts, int64_t block_size, const py::object& expert_mask,
                      const py::object& live) {
  require_rows(ids, "topk_ids", 2);
  MoeSortArgs args;
  args.ids = values<int32_t>(ids, "topk_ids");
  args.weights = values<float>(weights, "topk_weights");
  args.k = ids.shape(1);
  args.expert_mask = expert_map(expert_mask, "expert_mask", experts);
  require_same_shape(weights, "topk_weights", ids, "topk_ids");
  const auto masked = std::count(args.expert_mask.begin(), args.expert_mask.end(), 0);
  args.experts = sortable_experts(experts - masked,
                                  masked > 0 ? "experts that expert_mask leaves" : "num_experts");
  require_block(block_size);
  args.block_size = block_size;
  args.form = PairForm::kPacked;
  auto live_tokens = static_cast<int32_t>(ids.shape(0));
  if (!live.is_none()) live_tokens = std::clamp(live.cast<int64_t>(), int64_t{0}, ids.shape(0));
  args.live_tokens = &live_tokens;
  const int64_t capacity = moe_sort_capacity(ids.size(), args.experts, block_size);
  std::vector<int32_t> starts(static_cast<size_t>(args.experts) + 1);
  py::array_t<int32_t> sorted(capacity), blocks(capacity / block_size), valid(2);
  py::array_t<float> sorted_weights(capacity);
  args.starts = starts;
  args.sorted_pairs = writable(sorted);
  args.block_experts = writable(blocks);
  args.sorted_weights = writable(sorted_weights);
  args.padded_rows = valid.mutable_data();
  args.live_count = valid.mutable_data() + 1;
  args.fill_tails = true;
  machine.run(0, [&](Runtime& r, Workspace) { return moe_sort(r.context(), args); });
  return py::make_tuple(sorted, sorted_weights, blocks, valid);
}

py::tuple moe_create_indices(Machine& machine, const py::array& ids, int64_t experts) {
  MoeSortArgs args;
  args.ids = values<int32_t>(ids, "topk_ids");
  args.k = 1;
  args.experts = sortable_experts(experts, "num_experts");
  py::array_t<int32_t> order(ids.size()), starts(experts + 1), inverse(ids.size()), counts(experts);
  std::fill(writable(order).begin(), writable(order).end(), -1);
  args.order = writable(order);
  args.starts = writable(starts);
  args.inverse = writable(inverse);
  args.counts = writable(counts);
  machine.run(0, [&](Runtime& r, Workspace) { return moe_sort(r.context(), args); });
  return py::make_tuple(order, starts, inverse, counts);
}

void add_choices(py::module_& m, Machine& machine) {
  m.def(
      "topk_softmax",
      [&](const py::array& g, int64_t k, bool renormalize, const py::object& bias, int64_t shared,
          const std::string& scoring) {
        return topk_softmax(machine, g, k, renormalize, bias, shared, scoring);
      },
      py::arg("gating_output"), py::arg("topk"), py::kw_only(), py::arg("renormalize") = true,
      py::arg("correction_bias") = py::none(), py::arg("num_shared_experts") = 0,
      py::arg("shared_scoring_func") = "one",
      "Softmax over all experts, then the K best by (value descending, id ascending).\n"
      "gating_output [T, E] float32, float16 or bfloat16 (uint16 bits), any row stride.\n"
      "Returns topk_weights [T, K] f32, topk_ids [T, K] i32, token_expert_indices [T, K] i32.\n"
      "num_shared_experts S: ids E .. E+S-1 behind each row, with weight one, or with the sigmoid\n"
      "of S more columns of logits.");
  m.def(
      "topk_sigmoid",
      [&](const py::array& g, int64_t k, bool renormalize, const py::object& bias) {
        return topk_sigmoid(machine, g, k, renormalize, bias);
      },
      py::arg("gating_output"), py::arg("topk"), py::kw_only(), py::arg("renormalize") = false,
      py::arg("correction_bias") = py::none(),
      "The K best logits (or sigmoid + bias), weighted by their sigmoid. Returns weights, ids.");
  m.def(
      "topk_softplus_sqrt",
      [&](const py::array& g, int64_t k, bool renormalize, float scale, const py::object& bias) {
        return topk_softplus_sqrt(machine, g, k, renormalize, scale, bias);
      },
      py::arg("gating_output"), py::arg("topk"), py::kw_only(), py::arg("renormalize") = false,
      py::arg("routed_scaling_factor") = 1.0f, py::arg("correction_bias") = py::none(),
      "The K best of sqrt(softplus(logit)) + bias, weighted by the root times the factor.\n"
      "Returns weights, ids.");
  m.def(
      "grouped_topk",
      [&](const py::array& g, int64_t k, bool renormalize, int64_t groups, int64_t kept,
          const std::string& scoring, const py::object& bias, float scale, float epsilon) {
        return grouped_topk(machine, g, k, renormalize, groups, kept, scoring, bias, scale,
                            epsilon);
      },
      py::arg("gating_output"), py::arg("topk"), py::arg("renormalize"),
      py::arg("num_expert_group"), py::arg("topk_group"), py::kw_only(),
      py::arg("scoring_func") = "softmax", py::arg("correction_bias") = py::none(),
      py::arg("routed_scaling_factor") = 1.0f, py::arg("epsilon") = 0.0f,
      "The K best among the best groups; a bias selects and never weighs. Returns weights, ids.");
}

}  // namespace

void add_routing(py::module_& m, Machine& machine) {
  add_choices(m, machine);
  m.def(
      "moe_align_block_size",
      [&](const py::array& ids, int64_t block, int64_t experts, const py::object& map) {
        return moe_align_block_size(machine, ids, block, experts, map);
      },
      py::arg("topk_ids"), py::arg("block_size"), py::arg("num_experts"),
      py::arg("expert_map") = py::none(),
      "Flat pairs t*K+k by expert, each expert's run padded to block_size with T*K; stable.\n"
      "Returns sorted_token_ids, expert_ids (per block, -1 behind), num_tokens_post_padded [1].");
  m.def(
      "moe_sorting",
      [&](const py::array& ids, const py::array& w, int64_t experts, int64_t block,
          const py::object& mask, const py::object& live) {
        return moe_sorting(machine, ids, w, experts, block, mask, live);
      },
      py::arg("topk_ids"), py::arg("topk_weights"), py::arg("num_experts"), py::arg("block_size"),
      py::arg("expert_mask") = py::none(), py::arg("num_local_tokens") = py::none(),
      "Pairs packed as token | slot << 24 with their weights, padded per expert; stable.\n"
      "Returns sorted_ids, sorted_weights, sorted_expert_ids, num_valid_ids [2].");
  m.def(
      "moe_create_indices",
      [&](const py::array& ids, int64_t experts) {
        return moe_create_indices(machine, ids, experts);
      },
      py::arg("topk_ids"), py::arg("num_experts"),
      "Flat ids by expert. Returns token_expert_order, expert_start_indices [E+1],\n"
      "restore_token_order, counts [E].");
}

}  // namespace sluice::python
