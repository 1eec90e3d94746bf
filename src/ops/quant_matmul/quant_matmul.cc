#include "ops/quant_matmul/quant_matmul.h"

#include "ops/kernel_table.h"
#include "ops/parallel.h"
#include "ops/quant_matmul/kernels.h"
#include "ops/quant_matmul/quant_panels.h"

namespace sluice {
namespace {

constexpr Kernel<const QuantKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/quant_matmul/kernels.inc"
#undef SLUICE_KERNEL
};

// Panels of one task: enough work for a worker, few enough to share among them.
constexpr size_t kRangeBytes = size_t{256} << 10;

struct Codes {
  const char *in, *weight, *arith;
};
Codes names_of(QuantCodes codes) {
  if (codes == QuantCodes::kFp8) return {"fp8", "fp8", "fp8_row"};
  return {"int8", codes == QuantCodes::kInt8 ? "int8" : "int4", "int8_row"};
}

Status check_counts(const QuantMatmulArgs& a) {
  if (a.counts.empty()) return ok_status();
  if (a.counts.size() != a.experts.size())
    return invalid_argument("quant_matmul: counts: expected [E] = [{}], got [{}]", a.experts.size(),
                            a.counts.size());
  int64_t sum = 0;
  for (size_t e = 0; e < a.counts.size(); ++e) {
    if (a.counts[e] < 0)
      return invalid_argument("quant_matmul: counts[{}]: expected >= 0, got {}", e, a.counts[e]);
    if (a.counts[e] > 0 && a.experts[e] == nullptr)
      return invalid_argument("quant_matmul: experts[{}]: is missing, but has {} rows", e,
                              a.counts[e]);
    sum += a.counts[e];
  }
  if (sum != a.x.rows)
    return invalid_argument("quant_matmul: counts: expected a sum of T = {}, got {}", a.x.rows,
                            sum);
  return ok_status();
}

const QuantWeights* first_of(const QuantMatmulArgs& a) {
  for (const QuantWeights* w : a.experts)
    if (w != nullptr) return w;
  return nullptr;
}

Status check(const QuantMatmulArgs& a, const QuantWeights& w) {
  for (size_t e = 0; e < a.experts.size(); ++e) {
    const QuantWeights* o = a.experts[e];
    if (o != nullptr && (o->n != w.n || o->k != w.k || o->codes != w.codes || o->group != w.group))
      return invalid_argument(
          "quant_matmul: experts[{}]: expected [N, K] = [{}, {}] of {}, group {}, as the first, "
          "got "
          "[{}, {}] of {}, group {}",
          e, w.n, w.k, names_of(w.codes).weight, w.group, o->n, o->k, names_of(o->codes).weight,
          o->group);
  }
  if (a.counts.empty() && (a.experts.size() != 1 || a.experts[0] == nullptr))
    return invalid_argument("quant_matmul: counts: expected [E] = [{}] of several experts",
                            a.experts.size());
  if (a.x.data == nullptr || a.x.cols != w.k || a.x.stride < a.x.cols)
    return invalid_argument(
        "quant_matmul: x: expected [T, K] = [{}, {}], got [{}, {}] with row stride {}", a.x.rows,
        w.k, a.x.rows, a.x.cols, a.x.stride);
  if (a.x_scale.data == nullptr) return invalid_argument("quant_matmul: x_scale: is missing");
  if (a.out.data == nullptr || a.out.rows != a.x.rows || a.out.cols != w.n || a.out.stride < w.n)
    return invalid_argument(
        "quant_matmul: out: expected [T, N] = [{}, {}], got [{}, {}] with row stride {}", a.x.rows,
        w.n, a.out.rows, a.out.cols, a.out.stride);
  return check_counts(a);
}

// The product of rows [start, start + rows) with an expert.
QuantProduct product_of(const QuantMatmulArgs& a, const QuantWeights& w, std::byte* prepared,
                        int64_t start, int64_t rows) {
  QuantProduct p;
  p.x = a.x.row(start);
  p.x_stride = a.x.stride;
  p.x_scale = a.x_scale;
  p.x_scale.data += start * a.x_scale.row_stride;
  p.rows = rows;
  p.n = w.n;
  p.k = w.k;
  p.group = w.group;
  p.prepared = prepared + start * quant_row_bytes(w.codes, w.k, w.group);
  p.panels = w.data;
  p.panel_bytes = quant_panel_bytes(w.codes, w.k, w.group);
  p.round = a.round;
  p.out = a.out.row(start);
  p.out_stride = a.out.stride;
  return p;
}

}  // namespace

std::span<const Kernel<const QuantKernel>> quant_kernels() {
  return kKernels;
}

size_t quant_matmul_workspace_bytes(int64_t max_rows, int64_t experts, int64_t k, int64_t group,
                                    QuantCodes codes) {
  if (group == 0) group = k;
  return WorkspaceCarver::padded(static_cast<size_t>(experts + 1) * sizeof(int64_t)) +
         WorkspaceCarver::padded(static_cast<size_t>(max_rows * quant_row_bytes(codes, k, group)));
}

Status quant_matmul(const ExecContext& context, const QuantMatmulArgs& args, Workspace workspace) {
  if (args.x.rows == 0) return check_counts(args);
  const QuantWeights* first = first_of(args);
  if (first == nullptr) return invalid_argument("quant_matmul: experts: expected one or more");
  const QuantWeights& w = *first;
  SLUICE_RETURN_IF_ERROR(check(args, w));
  const Codes names = names_of(w.codes);
  const auto* kernel =
      select_kernel(quant_kernels(), context.isa, names.in, names.weight, names.arith);
  if (kernel == nullptr) return no_kernel("quant_matmul", context.isa);
  const auto experts = static_cast<int64_t>(args.experts.size());
  WorkspaceCarver carver(workspace);
  auto* starts = carver.take<int64_t>(experts + 1);
  auto* prepared = carver.take<std::byte>(args.x.rows * quant_row_bytes(w.codes, w.k, w.group));
  if (starts == nullptr || prepared == nullptr)
    return invalid_argument(
        "quant_matmul: workspace: expected {} bytes, got {}",
        quant_matmul_workspace_bytes(args.x.rows, experts, w.k, w.group, w.codes), workspace.bytes);
  starts[0] = 0;
  for (int64_t e = 0; e < experts; ++e)
    starts[e + 1] =
        args.counts.empty() ? args.x.rows : starts[e] + args.counts[static_cast<size_t>(e)];

  const QuantProduct all = product_of(args, w, prepared, 0, args.x.rows);
  parallel_ranges(context, args.x.rows, balanced_grain(context, args.x.rows, ceil_div(32768, w.k)),
                  [&](int64_t begin, int64_t end) { kernel->run->prepare(all, begin, end); });
  const size_t each = kRangeBytes / all.panel_bytes;
  const int64_t range = each < 1 ? 1 : static_cast<int64_t>(each);
  const int64_t ranges = ceil_div(w.panels(), range);
  parallel_ranges(context, experts * ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t e = i / ranges, rows = starts[e + 1] - starts[e];
      if (rows == 0) continue;
      QuantProduct p =
          product_of(args, *args.experts[static_cast<size_t>(e)], prepared, starts[e], rows);
      p.panel_begin = i % ranges * range;
      p.panel_end = p.panel_begin + range < w.panels() ? p.panel_begin + range : w.panels();
      kernel->run->multiply(p);
    }
  });
  return ok_status();
}

}  // namespace sluice
