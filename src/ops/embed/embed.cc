#include "ops/embed/embed.h"

#include "ops/embed/kernels.h"
#include "ops/kernel_table.h"
#include "ops/parallel.h"

namespace sluice {
namespace {

constexpr Kernel<EmbedKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/embed/kernels.inc"
#undef SLUICE_KERNEL
};

constexpr int64_t kLeastElements = 16384;

Result<EmbedForm> form_of(const PackedMatrix& table) {
  const bool rows = table.layout == WeightLayout::kRowMajor;
  const bool panels = table.layout == WeightLayout::kPanel16;
  switch (table.format) {
    case WeightFormat::kF32:
      if (rows) return EmbedForm::kRowF32;
      if (panels) return EmbedForm::kPanelF32;
      break;
    case WeightFormat::kBF16:
      if (rows) return EmbedForm::kRowBF16;
      if (panels) return EmbedForm::kPanelBF16;
      break;
    case WeightFormat::kF16:
      if (rows) return EmbedForm::kRowF16;
      break;
    default:
      break;
  }
  return unimplemented("embed: table: no kernel for format {} in layout {}",
                       weight_format_name(table.format), weight_layout_name(table.layout));
}

Status check(const ExecContext& context, const EmbedArgs& a) {
  if (a.table == nullptr || a.table->empty()) return invalid_argument("embed: table: is missing");
  const int64_t t = static_cast<int64_t>(a.ids.size());
  if (a.out.rows != t || a.out.cols != a.table->k)
    return invalid_argument("embed: out: expected [T, D] = [{}, {}], got [{}, {}]", t, a.table->k,
                            a.out.rows, a.out.cols);
  if (a.out.stride < a.out.cols)
    return invalid_argument("embed: out: row stride: expected at least D = {}, got {}", a.out.cols,
                            a.out.stride);
  const size_t need = packed_bytes(a.table->format, a.table->layout, a.table->n, a.table->k);
  if (a.table->bytes < need)
    return invalid_argument("embed: table: expected {} bytes for [V, D] = [{}, {}], got {}", need,
                            a.table->n, a.table->k, a.table->bytes);
  if (!on_host(context)) return ok_status();
  for (const int32_t id : a.ids)
    if (id < 0 || id >= a.table->n)
      return invalid_argument("embed: ids: expected V in [0, {}), got {}", a.table->n, id);
  return ok_status();
}

}  // namespace

std::span<const Kernel<EmbedKernel>> embed_kernels() {
  return kKernels;
}

Status embed(const ExecContext& context, const EmbedArgs& args) {
  SLUICE_RETURN_IF_ERROR(check(context, args));
  EmbedRows all;
  SLUICE_ASSIGN_OR_RETURN(all.form, form_of(*args.table));
  const auto* kernel = select_kernel(embed_kernels(), context.isa, "f32", "any", "exact");
  if (kernel == nullptr) return no_kernel("embed", context.isa);
  all.table = args.table->data;
  all.d = args.table->k;
  const bool rows = args.table->layout == WeightLayout::kRowMajor;
  all.group_bytes = rows ? static_cast<size_t>(all.d) *
                               (args.table->format == WeightFormat::kF32 ? size_t{4} : size_t{2})
                         : panel_bytes(args.table->format, all.d);
  all.ids = args.ids.data();
  all.out = args.out.data;
  all.out_stride = args.out.stride;
  all.scale = args.scale;
  all.stream = context.stream;
  const int64_t t = args.out.rows, least = ceil_div(kLeastElements, all.d < 1 ? 1 : all.d);
  parallel_ranges(context, t, balanced_grain(context, t, least), [&](int64_t begin, int64_t end) {
    EmbedRows part = all;
    part.ids += begin;
    part.out += begin * all.out_stride;
    part.rows = end - begin;
    kernel->run(part);
  });
  return ok_status();
}

}  // namespace sluice
