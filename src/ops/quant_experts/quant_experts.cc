#include "ops/quant_experts/quant_experts.h"

#include "ops/elementwise/elementwise.h"

namespace sluice {
namespace {

const QuantWeights* first_of(std::span<const QuantWeights* const> experts) {
  for (const QuantWeights* w : experts)
    if (w != nullptr) return w;
  return nullptr;
}

Result<QuantExpertsShape> shape_of(const QuantExpertsArgs& a) {
  const QuantWeights *up = first_of(a.up), *down = first_of(a.down);
  if (up == nullptr || down == nullptr || a.up.size() != a.down.size() ||
      a.counts.size() != a.up.size())
    return invalid_argument(
        "quant_experts: up, down, counts: expected [E] each, got [{}], [{}], [{}]", a.up.size(),
        a.down.size(), a.counts.size());
  if (up->n % 2 != 0 || down->k != up->n / 2 || down->n != up->k)
    return invalid_argument(
        "quant_experts: down: expected [D, I] beside up's [2I, D] = [{}, {}], got [{}, {}]", up->n,
        up->k, down->n, down->k);
  const bool narrow = a.x_bf16.data != nullptr;
  QuantExpertsShape s;
  s.max_rows = narrow ? a.x_bf16.rows : a.x.rows;
  s.experts = static_cast<int64_t>(a.up.size());
  s.d = up->k;
  s.width = down->k;
  s.up_group = up->group;
  s.down_group = down->group;
  s.up = up->codes;
  s.down = down->codes;
  s.group_scales = a.group_scales;
  return s;
}

size_t product_bytes(const QuantExpertsShape& s) {
  const size_t up = quant_matmul_workspace_bytes(s.max_rows, s.experts, s.d, s.up_group, s.up);
  const size_t down =
      quant_matmul_workspace_bytes(s.max_rows, s.experts, s.width, s.down_group, s.down);
  return up > down ? up : down;
}

// Scales of a row of x, or of `a`.
int64_t scales_of(const QuantExpertsShape& s, int64_t k, int64_t group) {
  return s.group_scales && group != 0 ? ceil_div(k, group) : 1;
}
int64_t most_scales(const QuantExpertsShape& s) {
  const int64_t up = scales_of(s, s.d, s.up_group), down = scales_of(s, s.width, s.down_group);
  return up > down ? up : down;
}

// What lies between the pieces, all in the caller's workspace.
struct Scratch {
  uint8_t* codes = nullptr;  // [T, max(D, I)]
  float* scales = nullptr;   // [T, groups]
  float* up = nullptr;       // [T, 2I]; the activation takes the place of the gates
  Workspace product;
};

Result<Scratch> carve(const QuantExpertsShape& shape, Workspace workspace) {
  WorkspaceCarver carver(workspace);
  Scratch s;
  s.codes = carver.take<uint8_t>(shape.max_rows * (shape.d > shape.width ? shape.d : shape.width));
  s.scales = carver.take<float>(shape.max_rows * most_scales(shape));
  s.up = carver.take<float>(shape.max_rows * 2 * shape.width);
  s.product.bytes = product_bytes(shape);
  s.product.data = carver.take<std::byte>(static_cast<int64_t>(s.product.bytes));
  if (s.codes == nullptr || s.scales == nullptr || s.up == nullptr || s.product.data == nullptr)
    return invalid_argument("quant_experts: workspace: expected {} bytes, got {}",
                            quant_experts_workspace_bytes(shape), workspace.bytes);
  return s;
}

// Rows times one matrix of each expert: codes, scales, the product.
struct Linear {
  const QuantExpertsArgs& args;
  const QuantExpertsShape& shape;
  const Scratch& scratch;

  Status run(const ExecContext& context, ConstMatrixF32 x, MatrixView<const bf16> x_bf16,
             const float* inv_smooth, std::span<const QuantWeights* const> experts,
             MatrixF32 out) const {
    const QuantWeights& w = *first_of(experts);
    const int64_t groups = scales_of(shape, w.k, w.group);
    QuantizeRowsArgs quantize;
    quantize.to = w.codes == QuantCodes::kFp8 ? QuantizeTo::kE4m3 : QuantizeTo::kInt8;
    quantize.scope = args.group_scales ? QuantizeScope::kGroup : QuantizeScope::kRow;
    quantize.group = w.group;
    quantize.x = x;
    quantize.x_bf16 = x_bf16;
    quantize.inv_smooth = inv_smooth;
    if (inv_smooth != nullptr) quantize.counts = args.counts;
    quantize.codes = {scratch.codes, shape.max_rows, w.k, w.k};
    quantize.scales = {scratch.scales, groups, 1};
    SLUICE_RETURN_IF_ERROR(quantize_rows(context, quantize));
    QuantMatmulArgs product;
    product.x = {reinterpret_cast<const int8_t*>(scratch.codes), shape.max_rows, w.k, w.k};
    product.x_scale = {scratch.scales, groups, args.group_scales ? 1 : 0};
    product.counts = args.counts;
    product.experts = experts;
    product.round = args.round;
    product.out = out;
    return quant_matmul(context, product, scratch.product);
  }
};

}  // namespace

size_t quant_experts_workspace_bytes(const QuantExpertsShape& s) {
  const int64_t wider = s.d > s.width ? s.d : s.width;
  return WorkspaceCarver::padded(static_cast<size_t>(s.max_rows * wider)) +
         WorkspaceCarver::padded(static_cast<size_t>(s.max_rows * most_scales(s)) * 4) +
         WorkspaceCarver::padded(static_cast<size_t>(s.max_rows * 2 * s.width) * 4) +
         WorkspaceCarver::padded(product_bytes(s));
}

Status quant_experts(const ExecContext& context, const QuantExpertsArgs& args,
                     Workspace workspace) {
  SLUICE_ASSIGN_OR_RETURN(const QuantExpertsShape shape, shape_of(args));
  SLUICE_ASSIGN_OR_RETURN(const Scratch s, carve(shape, workspace));
  const int64_t t = shape.max_rows, width = shape.width;
  const Linear linear{args, shape, s};
  SLUICE_RETURN_IF_ERROR(linear.run(context, args.x, args.x_bf16, args.inv_smooth_up, args.up,
                                    {s.up, t, 2 * width, 2 * width}));
  const MatrixF32 gate(s.up, t, width, 2 * width), up(s.up + width, t, width, 2 * width);
  SLUICE_RETURN_IF_ERROR(glu(context, gate, up, {ActivationKind::kSilu}, gate));
  return linear.run(context, gate, {}, args.inv_smooth_down, args.down, args.out);
}

}  // namespace sluice
