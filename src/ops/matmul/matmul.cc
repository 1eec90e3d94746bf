#include "ops/matmul/matmul.h"

#include "ops/kernel_table.h"
#include "ops/matmul/fp8_rows.h"
#include "ops/matmul/grouped_product.h"
#include "ops/matmul/kernels.h"
#include "ops/parallel.h"

namespace sluice {
namespace {

constexpr Kernel<const PanelKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/matmul/kernels.inc"
#undef SLUICE_KERNEL
};

// A range of panels should be worth waking a worker for.
constexpr size_t kSmallProduct = size_t{32} << 10;

int64_t panel_grain(const ExecContext& context, const PanelProduct& product, int64_t panels,
                    size_t range_bytes) {
  const size_t bytes = product.panel_bytes;
  const size_t work = bytes * static_cast<size_t>(panels * product.row_count);
  if (work <= kSmallProduct) return panels;
  const int64_t most = static_cast<int64_t>(range_bytes / bytes) / 4 * 4;
  const int64_t fair = round_up(balanced_grain(context, panels, 1), 4);
  return most < 4 ? 4 : fair < most ? fair : most;
}

bool overlap(const float* a, int64_t a_floats, const float* b, int64_t b_floats) {
  return a < b + b_floats && b < a + a_floats;
}

Status check_x(const ExecContext& context, const MatmulArgs& a) {
  const int64_t t = a.rows.empty() ? a.x.rows : static_cast<int64_t>(a.rows.size());
  if (a.x.cols != a.w->k)
    return invalid_argument("matmul: x: K: expected {} as w, got {}", a.w->k, a.x.cols);
  if (a.out.rows != t || a.out.cols != a.w->n)
    return invalid_argument("matmul: out: expected [T, N] = [{}, {}], got [{}, {}]", t, a.w->n,
                            a.out.rows, a.out.cols);
  if (a.x.stride < a.x.cols || a.out.stride < a.out.cols)
    return invalid_argument("matmul: row stride: expected at least the columns, got {} and {}",
                            a.x.stride, a.out.stride);
  for (const int32_t r : on_host(context) ? a.rows : std::span<const int32_t>())
    if (r < 0 || r >= a.x.rows)
      return invalid_argument("matmul: rows: expected T in [0, {}), got {}", a.x.rows, r);
  if (t > 0 && overlap(a.x.data, a.x.rows * a.x.stride, a.out.data, t * a.out.stride))
    return invalid_argument("matmul: out: must not alias x");
  return ok_status();
}

Status no_workspace(const MatmulArgs& args, Workspace workspace) {
  return invalid_argument("matmul: workspace: expected {} bytes for T = {}, K = {}, got {}",
                          matmul_workspace_bytes(args.out.rows, args.w->k), args.out.rows,
                          args.w->k, workspace.bytes);
}

// A device's row: everything in one go. Ariths of integers want the workspace for their
// quantised rows.
Status launch(const ExecContext& context, const PanelKernel& kernel, const MatmulArgs& args,
              Workspace workspace) {
  const PackedMatrix& w = *args.w;
  GroupedProduct product;
  product.x = args.x.data;
  product.x_stride = args.x.stride;
  product.x_rows = args.x.rows;
  product.rows = args.rows.empty() ? nullptr : args.rows.data();
  product.row_count = args.out.rows;
  product.panels = w.data;
  product.panel_bytes = panel_bytes(w.format, w.k, w.block);
  product.block = w.block;
  if (quantizes_x(args.arith)) {
    float* rows =
        WorkspaceCarver(workspace).take<float>(prepared_floats(args.out.rows, w.k, args.arith));
    if (rows == nullptr) return no_workspace(args, workspace);
    product.prepared = reinterpret_cast<std::byte*>(rows);
  }
  product.panel_count = w.panels();
  product.n = w.n;
  product.k = w.k;
  product.bias = args.bias;
  product.out = args.out.data;
  product.out_stride = args.out.stride;
  product.stream = context.stream;
  const ScopedFloatEnv env;
  kernel.launch(product);
  return ok_status();
}

}  // namespace

std::span<const Kernel<const PanelKernel>> panel_kernels() {
  return kKernels;
}

const Kernel<const PanelKernel>* select_panel_kernel(Isa isa, WeightFormat format, Arith arith) {
  const char* in = arith == Arith::kF32Fma    ? "f32"
                   : rounds_x(arith)          ? "bf16"
                   : arith == Arith::kInt16   ? "int16"
                   : arith == Arith::kFp8G128 ? "fp8"
                                              : "int8";
  return select_kernel(panel_kernels(), isa, in, weight_format_name(format), arith_name(arith));
}

int64_t prepared_floats(int64_t rows, int64_t k, Arith arith) {
  if (arith == Arith::kFp8G128) return rows * fp8_row_floats(k);
  // Two bytes for each k of whole tiles, scales and corrections: 32 k alone would not have the
  // room.
  return rows * round_up(k, arith == Arith::kInt16 ? 64 : 32);
}

size_t matmul_workspace_bytes(int64_t max_rows, int64_t max_k) {
  return WorkspaceCarver::padded(
      static_cast<size_t>(prepared_floats(max_rows, max_k, kMostPrepared)) * sizeof(float));
}

Status matmul(const ExecContext& context, const MatmulArgs& args, Workspace workspace) {
  if (args.w == nullptr || args.w->empty()) return invalid_argument("matmul: w: is missing");
  const PackedMatrix& w = *args.w;
  if (w.layout != WeightLayout::kPanel16)
    return unimplemented("matmul: w: layout: expected panel16, got {}",
                         weight_layout_name(w.layout));
  const Kernel<const PanelKernel>* kernel = select_panel_kernel(context.isa, w.format, args.arith);
  if (kernel == nullptr)
    return unimplemented("matmul: no {} kernel of arith {} for {} weights", isa_name(context.isa),
                         arith_name(args.arith), weight_format_name(w.format));
  SLUICE_RETURN_IF_ERROR(check_x(context, args));
  if (args.out.rows == 0) return ok_status();
  if (kernel->run->launch != nullptr) return launch(context, *kernel->run, args, workspace);
  PanelProduct product;
  product.x = args.x.data;
  product.rows = args.rows.empty() ? nullptr : args.rows.data();
  product.x_stride = args.x.stride;
  product.row_count = args.out.rows;
  product.k = w.k;
  product.panels = w.data;
  product.block = w.block;
  product.panel_bytes = panel_bytes(w.format, w.k, w.block);
  product.n = w.n;
  product.bias = args.bias;
  product.out = args.out.data;
  product.out_stride = args.out.stride;
  product.epilogue = kernel->run->store;
  product.prepared =
      WorkspaceCarver(workspace).take<float>(prepared_floats(product.row_count, w.k, args.arith));
  if (product.prepared == nullptr) return no_workspace(args, workspace);
  parallel_ranges(context, product.row_count, kPanelRowGrain,
                  [&](int64_t begin, int64_t end) { kernel->run->prepare(product, begin, end); });
  const int64_t panels = w.panels();
  parallel_ranges(context, panels, panel_grain(context, product, panels, kernel->run->range_bytes),
                  [&](int64_t begin, int64_t end) {
                    PanelProduct part = product;
                    part.panel_begin = begin;
                    part.panel_end = end;
                    kernel->run->multiply(part);
                  });
  return ok_status();
}

}  // namespace sluice
