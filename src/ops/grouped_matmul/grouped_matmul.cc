#include "ops/grouped_matmul/grouped_matmul.h"

#include "ops/grouped_matmul/grouped.h"
#include "ops/grouped_matmul/kernels.h"
#include "ops/kernel_table.h"
#include "ops/matmul/grouped_product.h"
#include "ops/matmul/panels.h"
#include "ops/parallel.h"

namespace sluice {
namespace {

constexpr Kernel<PanelEpilogue> kEpilogues[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/grouped_matmul/kernels.inc"
#undef SLUICE_KERNEL
};

constexpr int64_t kPanelsOfUnit = 4;

// A decode step has at most about so many rows.
constexpr int64_t kDecodeSlots = 64;

int64_t slots_of(const GroupedMatmulArgs& a, int64_t e) {
  return a.starts[static_cast<size_t>(e) + 1] - a.starts[static_cast<size_t>(e)];
}

Status check_lists(const GroupedMatmulArgs& a) {
  const auto experts = static_cast<int64_t>(a.experts.size());
  if (experts < 1 || static_cast<int64_t>(a.starts.size()) != experts + 1)
    return invalid_argument("grouped_matmul: starts: expected [E+1] = [{}], got [{}]", experts + 1,
                            a.starts.size());
  if (!a.bias.empty() && static_cast<int64_t>(a.bias.size()) != experts)
    return invalid_argument("grouped_matmul: bias: expected [E] = [{}], got [{}]", experts,
                            a.bias.size());
  return ok_status();
}

Status check_starts(const GroupedMatmulArgs& a) {
  SLUICE_RETURN_IF_ERROR(check_lists(a));
  const auto experts = static_cast<int64_t>(a.experts.size());
  if (a.starts[0] != 0) return invalid_argument("grouped_matmul: starts: expected 0 first");
  for (int64_t e = 0; e < experts; ++e)
    if (slots_of(a, e) < 0)
      return invalid_argument("grouped_matmul: starts: expected ascending, expert {} has {} slots",
                              e, slots_of(a, e));
  const int64_t slots = a.starts.back();
  const int64_t sources = a.source.empty() ? a.x.rows : std::ssize(a.source);
  if (slots > sources || slots > a.out.rows)
    return invalid_argument("grouped_matmul: starts: {} slots, but {} has {} and out {} rows",
                            slots, a.source.empty() ? "x" : "source", sources, a.out.rows);
  for (int64_t s = 0; s < slots && !a.source.empty(); ++s)
    if (a.source[static_cast<size_t>(s)] < 0 || a.source[static_cast<size_t>(s)] >= a.x.rows)
      return invalid_argument("grouped_matmul: source: expected in [0, {}), got {}", a.x.rows,
                              a.source[static_cast<size_t>(s)]);
  return ok_status();
}

Status check_expert(const GroupedMatmulArgs& a, int64_t e, const PackedMatrix& first) {
  const PackedMatrix* w = a.experts[static_cast<size_t>(e)];
  if (w == nullptr || w->empty())
    return invalid_argument("grouped_matmul: experts: expert {} has {} slots but no weights", e,
                            slots_of(a, e));
  if (w->format != first.format || w->layout != first.layout || w->n != first.n ||
      w->k != first.k || w->block != first.block)
    return invalid_argument(
        "grouped_matmul: experts: expert {}: expected {} {} [N, K] = [{}, {}], blocks of {}, as "
        "the "
        "first in use, got {} {} [{}, {}], {}",
        e, weight_format_name(first.format), weight_layout_name(first.layout), first.n, first.k,
        first.block, weight_format_name(w->format), weight_layout_name(w->layout), w->n, w->k,
        w->block);
  return ok_status();
}

Status check_shapes(const GroupedMatmulArgs& a, const PackedMatrix& w) {
  if (w.layout == WeightLayout::kRowMajor || (a.glu && w.layout != WeightLayout::kGluPanel16))
    return unimplemented("grouped_matmul: experts: layout: expected {}, got {}",
                         a.glu ? "glu_panel16" : "panel16 or glu_panel16",
                         weight_layout_name(w.layout));
  if (a.glu) SLUICE_RETURN_IF_ERROR(check_activation("grouped_matmul", a.activation));
  if (a.x.cols != w.k || a.x.stride < a.x.cols)
    return invalid_argument("grouped_matmul: x: K: expected {} as the experts, got {}", w.k,
                            a.x.cols);
  const int64_t outputs = a.glu ? w.n / 2 : w.n;
  if (a.out.cols != outputs || a.out.stride < outputs)
    return invalid_argument("grouped_matmul: out: {}: expected {}, got {}", a.glu ? "I" : "N",
                            outputs, a.out.cols);
  const float* x_end = a.x.data + a.x.rows * a.x.stride;
  const float* out_end = a.out.data + a.out.rows * a.out.stride;
  if (a.out.data < x_end && a.x.data < out_end)
    return invalid_argument("grouped_matmul: out: must not alias x");
  return ok_status();
}

// Finds the experts that have rows, checking each; `active` has room for one per slot.
Result<int64_t> list_active(const GroupedMatmulArgs& a, int32_t* active) {
  int64_t count = 0;
  for (int64_t e = 0; e < static_cast<int64_t>(a.experts.size()); ++e) {
    if (slots_of(a, e) == 0) continue;
    const int64_t first = count > 0 ? active[0] : e;
    if (a.experts[static_cast<size_t>(first)] == nullptr) return check_expert(a, e, PackedMatrix());
    SLUICE_RETURN_IF_ERROR(check_expert(a, e, *a.experts[static_cast<size_t>(first)]));
    active[count++] = static_cast<int32_t>(e);
  }
  return count;
}

// Of a device's call: the first expert that is there, which every other one must look like.
Result<const PackedMatrix*> check_device_experts(const GroupedMatmulArgs& a, int64_t slots) {
  SLUICE_RETURN_IF_ERROR(check_lists(a));
  if (a.device_panels.size() != a.experts.size() &&
      !(a.device_panels.empty() && a.experts.size() == 1))
    return invalid_argument("grouped_matmul: device_panels: expected [E] = [{}], got [{}]",
                            a.experts.size(), a.device_panels.size());
  if (slots > a.out.rows)
    return invalid_argument("grouped_matmul: out: expected {} rows as slots, got {}", slots,
                            a.out.rows);
  const PackedMatrix* first = nullptr;
  for (size_t e = 0; e < a.experts.size(); ++e) {
    if (a.experts[e] == nullptr || a.experts[e]->empty()) continue;
    if (first == nullptr) first = a.experts[e];
    SLUICE_RETURN_IF_ERROR(check_expert(a, static_cast<int64_t>(e), *first));
  }
  if (first == nullptr) return invalid_argument("grouped_matmul: experts: there is none");
  return first;
}

// Panels per range: about 256 KiB, so that an expert's rows find them in the second-level cache,
// and whole units.
int64_t most_panels(const PanelProduct& product, size_t range_bytes) {
  const auto most =
      static_cast<int64_t>(range_bytes / product.panel_bytes) / kPanelsOfUnit * kPanelsOfUnit;
  return most < kPanelsOfUnit ? kPanelsOfUnit : most;
}

// Ranges of [0, n) that workers take one after another: long at first, so that each streams with
// few starts, and short at the end, so that they end together.
class Shares {
 public:
  Shares(int64_t n, int64_t workers) {
    const int64_t least = ceil_div(n, kMost);
    for (int64_t at = 0; at < n; at = ends_[count_++]) {
      const int64_t share = (n - at) / (2 * workers);
      ends_[count_] = at + (share > least ? share : least);
    }
    ends_[count_ - 1] = n;
  }
  int64_t count() const { return count_; }
  int64_t begin(int64_t i) const { return i == 0 ? 0 : ends_[i - 1]; }
  int64_t end(int64_t i) const { return ends_[i]; }

 private:
  static constexpr int64_t kMost = 256;
  int64_t count_ = 0;
  int64_t ends_[kMost];
};

}  // namespace

std::span<const Kernel<PanelEpilogue>> glu_epilogues() {
  return kEpilogues;
}

size_t grouped_matmul_workspace_bytes(int64_t max_slots, int64_t max_k) {
  return WorkspaceCarver::padded(
             static_cast<size_t>(prepared_floats(max_slots, max_k, kMostPrepared)) * 4) +
         WorkspaceCarver::padded(static_cast<size_t>(max_slots) * 4);
}

Result<GroupedPlan> plan_grouped(const ExecContext& context, const GroupedMatmulArgs& args,
                                 int32_t* active) {
  SLUICE_RETURN_IF_ERROR(check_starts(args));
  GroupedPlan plan;
  plan.args = args;
  SLUICE_ASSIGN_OR_RETURN(const int64_t count, list_active(args, active));
  if (count == 0) return plan;
  plan.active = {active, static_cast<size_t>(count)};
  const PackedMatrix& w = *args.experts[static_cast<size_t>(active[0])];
  SLUICE_RETURN_IF_ERROR(check_shapes(args, w));
  const Kernel<const PanelKernel>* kernel = select_panel_kernel(context.isa, w.format, args.arith);
  const Kernel<PanelEpilogue>* epilogue =
      select_kernel(glu_epilogues(), context.isa, "f32", "any", "any");
  if (kernel == nullptr || epilogue == nullptr)
    return unimplemented("grouped_matmul: no {} kernel of arith {} for {} weights",
                         isa_name(context.isa), arith_name(args.arith),
                         weight_format_name(w.format));
  plan.kernel = kernel->run;
  plan.isa = kernel->isa;
  plan.epilogue = args.glu ? epilogue->run : kernel->run->store;
  return plan;
}

PanelProduct expert_product(const GroupedPlan& plan, int64_t e) {
  const GroupedMatmulArgs& a = plan.args;
  const PackedMatrix& w = *a.experts[static_cast<size_t>(e)];
  const int64_t start = a.starts[static_cast<size_t>(e)];
  PanelProduct product;
  product.x = a.source.empty() ? a.x.data + start * a.x.stride : a.x.data;
  product.rows = a.source.empty() ? nullptr : a.source.data() + start;
  product.x_stride = a.x.stride;
  product.row_count = slots_of(a, e);
  product.k = w.k;
  product.prepared = plan.prepared + prepared_floats(start, w.k, a.arith);
  product.panels = w.data;
  product.block = w.block;
  product.panel_bytes = panel_bytes(w.format, w.k, w.block);
  product.panel_end = w.panels();
  product.n = w.n;
  product.glu_layout = w.layout == WeightLayout::kGluPanel16;
  product.bias = a.bias.empty() ? nullptr : a.bias[static_cast<size_t>(e)];
  product.out = a.out.data + start * a.out.stride;
  product.out_stride = a.out.stride;
  product.epilogue = plan.epilogue;
  product.epilogue_data = &a.activation;
  return product;
}

bool round_once(const ExecContext& context, const GroupedPlan& plan, PanelProduct* all) {
  const ConstMatrixF32& x = plan.args.x;
  const int64_t floats = prepared_floats(x.rows, x.cols, plan.args.arith);
  if (plan.kernel->gather == nullptr || plan.args.source.empty()) return false;
  if (2 * x.rows > plan.args.starts.back()) return false;
  if (plan.rounded.bytes < static_cast<size_t>(floats) * sizeof(float)) return false;
  *all = expert_product(plan, plan.active[0]);
  all->x = x.data;
  all->rows = nullptr;
  all->row_count = x.rows;
  all->prepared = reinterpret_cast<float*>(plan.rounded.data);
  parallel_ranges(context, x.rows, kPanelRowGrain,
                  [&](int64_t begin, int64_t end) { plan.kernel->prepare(*all, begin, end); });
  return true;
}

void prepare_grouped(const ExecContext& context, const GroupedPlan& plan) {
  if (plan.active.size() == 1) {
    const PanelProduct product = expert_product(plan, plan.active[0]);
    return parallel_ranges(
        context, product.row_count, kPanelRowGrain,
        [&](int64_t begin, int64_t end) { plan.kernel->prepare(product, begin, end); });
  }
  PanelProduct all;
  const bool rounded = round_once(context, plan, &all);
  const auto experts = static_cast<int64_t>(plan.active.size());
  // The few rows of a decode step are not worth waking a worker for.
  const int64_t grain = plan.args.starts.back() <= kDecodeSlots ? experts : 1;
  parallel_ranges(context, experts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const PanelProduct product = expert_product(plan, plan.active[static_cast<size_t>(i)]);
      if (rounded)
        plan.kernel->gather(all, product, 0, product.row_count);
      else
        plan.kernel->prepare(product, 0, product.row_count);
    }
  });
}

void multiply_grouped(const ExecContext& context, const GroupedPlan& plan) {
  if (plan.active.empty()) return;
  const auto experts = static_cast<int64_t>(plan.active.size());
  // Gate and up panels belong together, and kernels like pairs of pairs.
  const int64_t each = ceil_div(expert_product(plan, plan.active[0]).panel_end, kPanelsOfUnit);
  const Shares shares(experts * each, workers_of(context));
  parallel_ranges(context, shares.count(), 1, [&](int64_t i, int64_t) {
    for (int64_t unit = shares.begin(i), next = 0; unit < shares.end(i); unit = next) {
      const int64_t expert = unit / each, first = expert * each;
      next = shares.end(i) < first + each ? shares.end(i) : first + each;
      PanelProduct product = expert_product(plan, plan.active[static_cast<size_t>(expert)]);
      const int64_t end = (next - first) * kPanelsOfUnit;
      product.panel_begin = (unit - first) * kPanelsOfUnit;
      product.panel_end = end < product.panel_end ? end : product.panel_end;
      multiply_panels(plan, product);
    }
  });
}

void multiply_panels(const GroupedPlan& plan, PanelProduct product) {
  if (product.row_count <= plan.kernel->rows_of_pass) return plan.kernel->multiply(product);
  const int64_t end = product.panel_end;
  const int64_t grain = most_panels(product, plan.kernel->range_bytes);
  for (int64_t p = product.panel_begin; p < end; p += grain) {
    product.panel_begin = p;
    product.panel_end = p + grain < end ? p + grain : end;
    plan.kernel->multiply(product);
  }
}

Status launch_grouped(const ExecContext& context, const GroupedMatmulArgs& args, int64_t slots,
                      float* prepared) {
  SLUICE_ASSIGN_OR_RETURN(const PackedMatrix* w, check_device_experts(args, slots));
  SLUICE_RETURN_IF_ERROR(check_shapes(args, *w));
  const Kernel<const PanelKernel>* kernel = select_panel_kernel(context.isa, w->format, args.arith);
  if (kernel == nullptr)
    return unimplemented("grouped_matmul: no {} kernel of arith {} for {} weights",
                         isa_name(context.isa), arith_name(args.arith),
                         weight_format_name(w->format));
  if (slots == 0) return ok_status();
  GroupedProduct product;
  product.x = args.x.data;
  product.x_stride = args.x.stride;
  product.x_rows = args.x.rows;
  product.rows = args.source.empty() ? nullptr : args.source.data();
  product.row_count = slots;
  product.starts = args.starts.data();
  product.experts = static_cast<int64_t>(args.experts.size());
  product.expert_panels = args.device_panels.empty() ? nullptr : args.device_panels.data();
  product.panels = w->data;
  product.panel_bytes = panel_bytes(w->format, w->k, w->block);
  product.block = w->block;
  product.prepared = reinterpret_cast<std::byte*>(prepared);
  product.panel_count = w->panels();
  product.n = w->n;
  product.k = w->k;
  product.glu_layout = w->layout == WeightLayout::kGluPanel16;
  product.expert_bias = args.bias.empty() ? nullptr : args.bias.data();
  product.glu = args.glu;
  product.activation = args.activation;
  product.out = args.out.data;
  product.out_stride = args.out.stride;
  product.stream = context.stream;
  const ScopedFloatEnv env;
  kernel->run->launch(product);
  return ok_status();
}

static Status no_workspace(int64_t slots, int64_t k, Workspace workspace) {
  return invalid_argument(
      "grouped_matmul: workspace: expected {} bytes for {} slots, K = {}, got {}",
      grouped_matmul_workspace_bytes(slots, k), slots, k, workspace.bytes);
}

static Status launch_alone(const ExecContext& context, const GroupedMatmulArgs& args,
                           Workspace workspace) {
  const auto slots = static_cast<int64_t>(args.source.size());
  float* prepared = nullptr;
  if (quantizes_x(args.arith) && slots > 0) {
    prepared =
        WorkspaceCarver(workspace).take<float>(prepared_floats(slots, args.x.cols, args.arith));
    if (prepared == nullptr) return no_workspace(slots, args.x.cols, workspace);
  }
  return launch_grouped(context, args, slots, prepared);
}

Status grouped_matmul(const ExecContext& context, const GroupedMatmulArgs& args,
                      Workspace workspace) {
  if (is_cuda(context.isa)) return launch_alone(context, args, workspace);
  const int64_t slots = args.starts.empty() ? 0 : args.starts.back();
  WorkspaceCarver carver(workspace);
  float* prepared =
      slots < 0 ? nullptr : carver.take<float>(prepared_floats(slots, args.x.cols, args.arith));
  int32_t* active = slots < 0 ? nullptr : carver.take<int32_t>(slots);
  if (slots > 0 && (prepared == nullptr || active == nullptr))
    return no_workspace(slots, args.x.cols, workspace);
  SLUICE_ASSIGN_OR_RETURN(GroupedPlan plan, plan_grouped(context, args, active));
  if (plan.active.empty()) return ok_status();
  plan.prepared = prepared;
  prepare_grouped(context, plan);
  multiply_grouped(context, plan);
  return ok_status();
}

}  // namespace sluice
