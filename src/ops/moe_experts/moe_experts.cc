#include "ops/moe_experts/moe_experts.h"

#include "ops/grouped_matmul/grouped.h"
#include "ops/kernel_table.h"
#include "ops/moe_experts/by_expert.h"
#include "ops/moe_experts/kernels.h"
#include "ops/moe_sort/moe_sort.h"

namespace sluice {
namespace {

constexpr Kernel<PanelEpilogue> kEpilogues[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/moe_experts/kernels.inc"
#undef SLUICE_KERNEL
};

// What lies between the pieces, all in the caller's workspace. The second product's rows take the
// place of the first one's prepared input, which is dead by then.
struct Scratch {
  std::span<int32_t> starts, source, inverse, active;
  float* prepared = nullptr;  // [T*K, round_up(D, 32)], later y [T*K, D]
  float* hidden = nullptr;    // [T*K, round_up(I, 32)]: the second product's prepared input
  // Ariths that quantise x only: hidden rows stay f32 until all k of a scale are there, and are
  // prepared from there to here.
  float* down_prepared = nullptr;
  SortedPairs sorted;        // the caller's, or the first three
  float* weighed = nullptr;  // weights on the input only: w * x of every slot, [T*K, D]
};

bool weighs_input(const MoeExpertsArgs& args) {
  return args.weight_point == WeightPoint::kInput;
}

// The caller's activation with the roundings of the profile.
Activation activation_of(const MoeExpertsArgs& args) {
  Activation a = args.experts.activation;
  a.rounding = args.profile.activation;
  return a;
}

Status check_sorted(const MoeExpertsArgs& a) {
  const SortedPairs& s = a.sorted;
  if (s.starts.empty()) return ok_status();
  if (s.starts.size() != a.experts.gate_up.size() + 1 || s.source.size() != a.ids.size() ||
      s.inverse.size() != a.ids.size())
    return invalid_argument(
        "moe_experts: sorted: expected starts [E+1] = [{}], source and inverse [T*K] = [{}], got "
        "[{}], [{}] and [{}]",
        a.experts.gate_up.size() + 1, a.ids.size(), s.starts.size(), s.source.size(),
        s.inverse.size());
  if (!a.expert_map.empty() || !a.counts.empty())
    return invalid_argument(
        "moe_experts: sorted: expert_map and counts belong to the sort before and must be empty");
  return ok_status();
}

Status check(const MoeExpertsArgs& a) {
  if (a.k < 1 || static_cast<int64_t>(a.ids.size()) != a.x.rows * a.k ||
      a.ids.size() != a.weights.size())
    return invalid_argument("moe_experts: ids, weights: expected [T, K] = [{}, {}], got [{}], [{}]",
                            a.x.rows, a.k, a.ids.size(), a.weights.size());
  if (a.experts.gate_up.empty() || a.experts.gate_up.size() != a.experts.down.size())
    return invalid_argument("moe_experts: gate_up, down: expected [E] each, got [{}] and [{}]",
                            a.experts.gate_up.size(), a.experts.down.size());
  if (a.experts.width < 1)
    return invalid_argument("moe_experts: I: expected 1 or more, got {}", a.experts.width);
  if (!a.counts.empty() && a.counts.size() != a.experts.gate_up.size())
    return invalid_argument("moe_experts: counts: expected [E] = [{}], got [{}]",
                            a.experts.gate_up.size(), a.counts.size());
  return check_sorted(a);
}

Result<Scratch> carve(const MoeExpertsArgs& a, Workspace workspace) {
  const auto slots = static_cast<int64_t>(a.ids.size());
  const auto experts = static_cast<int64_t>(a.experts.gate_up.size());
  WorkspaceCarver carver(workspace);
  bool enough = true;
  const auto ints = [&](int64_t n) {
    int32_t* p = carver.take<int32_t>(n);
    enough = enough && p != nullptr;
    return std::span<int32_t>(p, p == nullptr ? 0 : static_cast<size_t>(n));
  };
  Scratch s;
  s.starts = ints(experts + 1);
  s.source = ints(slots);
  s.inverse = ints(slots);
  s.active = ints(slots);
  s.prepared = carver.take<float>(prepared_floats(slots, a.x.cols, a.arith));
  s.hidden = carver.take<float>(prepared_floats(slots, a.experts.width, a.arith));
  if (quantizes_x(a.arith))
    s.down_prepared = carver.take<float>(prepared_floats(slots, a.experts.width, a.arith));
  enough = enough && (s.down_prepared != nullptr || !quantizes_x(a.arith));
  if (weighs_input(a)) s.weighed = carver.take<float>(slots * a.x.cols);
  enough = enough && (s.weighed != nullptr || !weighs_input(a));
  if (!enough || s.prepared == nullptr || s.hidden == nullptr)
    return invalid_argument("moe_experts: workspace: expected {} bytes, got {}",
                            moe_experts_workspace_bytes({a.x.rows, a.k, experts, a.x.cols,
                                                         a.experts.width, a.arith, a.weight_point}),
                            workspace.bytes);
  return s;
}

Status sort(const ExecContext& context, const MoeExpertsArgs& args, Scratch& s) {
  s.sorted = args.sorted;
  if (!s.sorted.starts.empty()) return ok_status();
  s.sorted = {s.starts, s.source, s.inverse};
  MoeSortArgs a;
  a.ids = args.ids;
  a.k = args.k;
  a.experts = static_cast<int64_t>(args.experts.gate_up.size());
  a.expert_map = args.expert_map;
  a.starts = s.starts;
  a.source = s.source;
  a.inverse = s.inverse;
  a.totals = args.counts;
  return moe_sort(context, a);
}

// w * x in the order of the slots.
Status weigh(const ExecContext& context, const MoeExpertsArgs& args, const Scratch& s) {
  const auto slots = static_cast<int64_t>(args.ids.size());
  return weigh_rows(context, {.x = args.x,
                              .k = args.k,
                              .slots = s.sorted.inverse,
                              .weights = args.weights,
                              .rounded = args.profile.weighted_inputs,
                              .out = {s.weighed, slots, args.x.cols}});
}

const PackedMatrix* first_of(std::span<const PackedMatrix* const> experts) {
  for (const PackedMatrix* w : experts)
    if (w != nullptr && !w->empty()) return w;
  return nullptr;
}

// The best ISA at which both products' kernels take rows in the same form: the hidden rows pass
// from one to the other as they are, and a format may have no row for the best.
Isa common_isa(const ExecContext& context, const MoeExpertsArgs& args) {
  const PackedMatrix *up = first_of(args.experts.gate_up), *down = first_of(args.experts.down);
  Isa isa = context.isa;
  if (quantizes_x(args.arith)) return isa;  // hidden rows are f32
  while (up != nullptr && down != nullptr) {
    const auto* a = select_panel_kernel(isa, up->format, args.arith);
    const auto* b = select_panel_kernel(isa, down->format, args.arith);
    if (a == nullptr || b == nullptr || a->run->prepare == b->run->prepare) break;
    const Isa lower = a->isa < b->isa ? a->isa : b->isa;
    if (lower == Isa::kReference) return lower;
    isa = lower < isa ? lower : static_cast<Isa>(static_cast<int>(isa) - 1);
  }
  return isa;
}

Workspace hidden_place(const MoeExpertsArgs& args, const Scratch& s) {
  const int64_t floats = prepared_floats(std::ssize(args.ids), args.experts.width, args.arith);
  return {reinterpret_cast<std::byte*>(s.hidden), static_cast<size_t>(floats) * sizeof(float)};
}

// x to hidden: gate and up, activation, and the second product's row blocks.
Result<GroupedPlan> plan_up(const ExecContext& context, const MoeExpertsArgs& args,
                            const Scratch& s) {
  GroupedMatmulArgs a;
  a.arith = args.arith;
  a.x = args.x;
  a.source = s.sorted.source;
  if (weighs_input(args)) {
    a.x = {s.weighed, static_cast<int64_t>(args.ids.size()), args.x.cols};
    a.source = {};
  }
  a.starts = s.sorted.starts;
  a.experts = args.experts.gate_up;
  a.bias = args.experts.gate_up_bias;
  a.glu = true;
  a.activation = activation_of(args);
  a.out = MatrixF32(s.hidden, static_cast<int64_t>(args.ids.size()), args.experts.width,
                    prepared_floats(1, args.experts.width, args.arith));
  SLUICE_ASSIGN_OR_RETURN(GroupedPlan plan, plan_grouped(context, a, s.active.data()));
  if (plan.active.empty()) return plan;
  plan.prepared = s.prepared;
  if (quantizes_x(args.arith)) return plan;
  const Kernel<PanelEpilogue>* epilogue =
      select_kernel(moe_experts_epilogues(), plan.isa,
                    args.arith == Arith::kF32Fma ? "f32" : "bf16", "any", arith_name(args.arith));
  if (epilogue == nullptr) return unimplemented("no epilogue of arith {}", arith_name(args.arith));
  plan.epilogue = epilogue->run;
  return plan;
}

// hidden to y: the rows are already what the kernel streams, but where they are quantised.
Result<GroupedPlan> plan_down(const ExecContext& context, const MoeExpertsArgs& args,
                              const Scratch& s, const GroupedPlan& up, MatrixF32 y) {
  GroupedMatmulArgs a;
  a.arith = args.arith;
  a.x = up.args.out;
  a.starts = s.sorted.starts;
  a.experts = args.experts.down;
  a.bias = args.experts.down_bias;
  a.out = y;
  SLUICE_ASSIGN_OR_RETURN(GroupedPlan plan, plan_grouped(context, a, s.active.data()));
  if (plan.active.empty()) return plan;
  plan.prepared = quantizes_x(args.arith) ? s.down_prepared : s.hidden;
  if (!quantizes_x(args.arith) && plan.kernel->prepare != up.kernel->prepare)
    return internal_error("the two products' kernels take rows in different blocks");
  return plan;
}

// All experts' first products, then all their second ones: every worker may have a part of every
// expert, and meets the others in between.
void multiply_in_phases(const ExecContext& context, const MoeExpertsArgs& args, const Scratch& s,
                        GroupedPlan& up, const GroupedPlan& down) {
  // Nobody needs the hidden rows' place before the products.
  if (quantizes_x(args.arith)) up.rounded = hidden_place(args, s);
  prepare_grouped(context, up);
  multiply_grouped(context, up);
  if (quantizes_x(args.arith)) prepare_grouped(context, down);
  multiply_grouped(context, down);
}

// Both products on the CPU.
Status multiply(const ExecContext& context, const MoeExpertsArgs& args, const Scratch& s,
                MatrixF32 y) {
  ExecContext products = context;
  products.isa = common_isa(context, args);
  Result<GroupedPlan> up = plan_up(products, args, s);
  SLUICE_RETURN_IF_ERROR(up.status().annotate("moe_experts: gate_up"));
  if (up->active.empty()) return ok_status();
  const Result<GroupedPlan> down = plan_down(products, args, s, *up, y);
  SLUICE_RETURN_IF_ERROR(down.status().annotate("moe_experts: down"));
  if (!multiply_by_expert(products, *up, *down, hidden_place(args, s)))
    multiply_in_phases(products, args, s, *up, *down);
  return ok_status();
}

// Both products on a device. Hidden rows stay f32; the second product rounds them as it reads, or
// quantises them first.
Status launch(const ExecContext& context, const MoeExpertsArgs& args, const Scratch& s,
              MatrixF32 y) {
  const auto slots = static_cast<int64_t>(args.ids.size());
  GroupedMatmulArgs a;
  a.arith = args.arith;
  a.x = args.x;
  a.source = s.sorted.source;
  if (weighs_input(args)) a.x = {s.weighed, slots, args.x.cols}, a.source = {};
  a.starts = s.sorted.starts;
  a.experts = args.experts.gate_up;
  a.device_panels = args.experts.gate_up_panels;
  a.bias = args.experts.gate_up_bias;
  a.glu = true;
  a.activation = activation_of(args);
  a.out = MatrixF32(s.hidden, slots, args.experts.width);
  SLUICE_RETURN_IF_ERROR(
      launch_grouped(context, a, slots, s.prepared).annotate("moe_experts: gate_up"));
  a.x = a.out;
  a.source = {};
  a.experts = args.experts.down;
  a.device_panels = args.experts.down_panels;
  a.bias = args.experts.down_bias;
  a.glu = false;
  a.out = y;
  return launch_grouped(context, a, slots, s.down_prepared).annotate("moe_experts: down");
}

}  // namespace

std::span<const Kernel<PanelEpilogue>> moe_experts_epilogues() {
  return kEpilogues;
}

size_t moe_experts_workspace_bytes(const MoeExpertsShape& shape) {
  const int64_t slots = shape.max_tokens * shape.k;
  const auto words = [](int64_t n) { return WorkspaceCarver::padded(static_cast<size_t>(n) * 4); };
  return words(shape.experts + 1) + 3 * words(slots) +
         words(prepared_floats(slots, shape.d, shape.arith)) +
         words(prepared_floats(slots, shape.width, shape.arith)) *
             (quantizes_x(shape.arith) ? 2 : 1) +
         (shape.weight_point == WeightPoint::kInput ? words(slots * shape.d) : 0);
}

Status moe_experts(const ExecContext& context, const MoeExpertsArgs& args, Workspace workspace) {
  SLUICE_RETURN_IF_ERROR(check(args));
  SLUICE_ASSIGN_OR_RETURN(Scratch s, carve(args, workspace));
  SLUICE_RETURN_IF_ERROR(sort(context, args, s));
  if (weighs_input(args)) SLUICE_RETURN_IF_ERROR(weigh(context, args, s));
  const MatrixF32 y(s.prepared, static_cast<int64_t>(args.ids.size()), args.x.cols);
  SLUICE_RETURN_IF_ERROR(is_cuda(context.isa) ? launch(context, args, s, y)
                                              : multiply(context, args, s, y));
  MoeCombineArgs combine;
  combine.y = y;
  combine.inverse = s.sorted.inverse;
  if (!weighs_input(args)) combine.weights = args.weights;
  combine.k = args.k;
  combine.rounding = args.profile.combine;
  combine.then = args.then;
  combine.norm_weight = args.norm_weight;
  combine.eps = args.eps;
  combine.out = args.out;
  combine.residual = args.residual;
  combine.branches = args.branches;
  return moe_combine(context, combine);
}

}  // namespace sluice
