#include "ops/quant_experts/quant_experts.h"

#include "ops/elementwise/elementwise.h"

namespace sluice {
namespace {

struct Shape {
  int64_t t = 0, d = 0, width = 0, up_group = 0, down_group = 0;
};

const QuantWeights* first_of(std::span<const QuantWeights* const> experts) {
  for (const QuantWeights* w : experts)
    if (w != nullptr) return w;
  return nullptr;
}

Result<Shape> shape_of(const QuantExpertsArgs& a) {
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
  return Shape{narrow ? a.x_bf16.rows : a.x.rows, up->k, down->k, up->group, down->group};
}

size_t product_bytes(const QuantExpertsShape& s) {
  const size_t up = quant_matmul_workspace_bytes(s.max_rows, s.experts, s.d, s.up_group);
  const size_t down = quant_matmul_workspace_bytes(s.max_rows, s.experts, s.width, s.down_group);
  return up > down ? up : down;
}

// What lies between the pieces, all in the caller's workspace.
struct Scratch {
  uint8_t* codes = nullptr;  // [T, max(D, I)]
  float* scales = nullptr;   // [T]
  float* up = nullptr;       // [T, 2I]; the activation takes the place of the gates
  Workspace product;
};

Result<Scratch> carve(const QuantExpertsShape& shape, Workspace workspace) {
  WorkspaceCarver carver(workspace);
  Scratch s;
  s.codes = carver.take<uint8_t>(shape.max_rows * (shape.d > shape.width ? shape.d : shape.width));
  s.scales = carver.take<float>(shape.max_rows);
  s.up = carver.take<float>(shape.max_rows * 2 * shape.width);
  s.product.bytes = product_bytes(shape);
  s.product.data = carver.take<std::byte>(static_cast<int64_t>(s.product.bytes));
  if (s.codes == nullptr || s.scales == nullptr || s.up == nullptr || s.product.data == nullptr)
    return invalid_argument("quant_experts: workspace: expected {} bytes, got {}",
                            quant_experts_workspace_bytes(shape), workspace.bytes);
  return s;
}

}  // namespace

size_t quant_experts_workspace_bytes(const QuantExpertsShape& s) {
  const int64_t wider = s.d > s.width ? s.d : s.width;
  return WorkspaceCarver::padded(static_cast<size_t>(s.max_rows * wider)) +
         WorkspaceCarver::padded(static_cast<size_t>(s.max_rows) * 4) +
         WorkspaceCarver::padded(static_cast<size_t>(s.max_rows * 2 * s.width) * 4) +
         WorkspaceCarver::padded(product_bytes(s));
}

Status quant_experts(const ExecContext& context, const QuantExpertsArgs& args,
                     Workspace workspace) {
  SLUICE_ASSIGN_OR_RETURN(const Shape shape, shape_of(args));
  SLUICE_ASSIGN_OR_RETURN(
      const Scratch s, carve({shape.t, static_cast<int64_t>(args.up.size()), shape.d, shape.width,
                              shape.up_group, shape.down_group},
                             workspace));
  QuantizeRowsArgs quantize;
  quantize.x = args.x;
  quantize.x_bf16 = args.x_bf16;
  quantize.inv_smooth = args.inv_smooth_up;
  if (args.inv_smooth_up != nullptr) quantize.counts = args.counts;
  quantize.codes = {s.codes, shape.t, shape.d, shape.d};
  quantize.scales.data = s.scales;
  SLUICE_RETURN_IF_ERROR(quantize_rows(context, quantize));

  QuantMatmulArgs product;
  product.x = {reinterpret_cast<const int8_t*>(s.codes), shape.t, shape.d, shape.d};
  product.x_scale = s.scales;
  product.counts = args.counts;
  product.experts = args.up;
  product.round = args.round;
  product.out = {s.up, shape.t, 2 * shape.width, 2 * shape.width};
  SLUICE_RETURN_IF_ERROR(quant_matmul(context, product, s.product));

  const MatrixF32 gate(s.up, shape.t, shape.width, 2 * shape.width);
  const MatrixF32 up(s.up + shape.width, shape.t, shape.width, 2 * shape.width);
  SLUICE_RETURN_IF_ERROR(glu(context, gate, up, {ActivationKind::kSilu}, gate));

  quantize.x = gate;
  quantize.x_bf16 = {};
  quantize.inv_smooth = args.inv_smooth_down;
  quantize.counts = args.inv_smooth_down != nullptr ? args.counts : std::span<const int32_t>();
  quantize.codes = {s.codes, shape.t, shape.width, shape.width};
  SLUICE_RETURN_IF_ERROR(quantize_rows(context, quantize));

  product.x = {reinterpret_cast<const int8_t*>(s.codes), shape.t, shape.width, shape.width};
  product.experts = args.down;
  product.out = args.out;
  return quant_matmul(context, product, s.product);
}

}  // namespace sluice
