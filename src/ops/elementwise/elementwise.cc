#include "ops/elementwise/elementwise.h"

#include <cmath>

#include "ops/elementwise/kernels.h"
#include "ops/kernel_table.h"
#include "ops/parallel.h"

namespace sluice {
namespace {

constexpr Kernel<ElementwiseKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/elementwise/kernels.inc"
#undef SLUICE_KERNEL
};

// Below this many elements per worker a second worker costs more than it saves.
constexpr int64_t kLeastElements = 16384;

Status run(const ExecContext& context, const ElementwiseTask& task) {
  const Kernel<ElementwiseKernel>* kernel =
      select_kernel(elementwise_kernels(), context.isa, "f32", "none", "f32");
  if (kernel == nullptr) return no_kernel("elementwise", context.isa);
  if (task.cols == 0) return ok_status();
  const int64_t grain = balanced_grain(context, task.rows, ceil_div(kLeastElements, task.cols));
  parallel_ranges(context, task.rows, grain, [&](int64_t begin, int64_t end) {
    ElementwiseTask part = task;
    part.rows = end - begin;
    part.stream = context.stream;
    part.first_pair = begin;
    if (task.step == ElementwiseStep::kWeigh) return kernel->run(part);
    part.a += begin * task.a_stride;
    part.b += begin * task.b_stride;
    part.out += begin * task.out_stride;
    kernel->run(part);
  });
  return ok_status();
}

template <class T>
Status check_shape(std::string_view op, std::string_view tensor, const MatrixView<T>& m,
                   int64_t rows, int64_t cols) {
  if (m.rows != rows || m.cols != cols || m.stride < m.cols)
    return invalid_argument("{}: {}: expected [T, D] = [{}, {}], got [{}, {}] with row stride {}",
                            op, tensor, rows, cols, m.rows, m.cols, m.stride);
  return ok_status();
}

// A task over `out` alone, whose other operands are placeholders that no step reads.
ElementwiseTask in_place(ElementwiseStep step, MatrixF32 m, float s) {
  ElementwiseTask task;
  task.step = step;
  task.s = s;
  task.rows = m.rows;
  task.cols = m.cols;
  task.a = task.b = task.out = m.data;
  task.a_stride = task.b_stride = task.out_stride = m.stride;
  return task;
}

}  // namespace

std::span<const Kernel<ElementwiseKernel>> elementwise_kernels() {
  return kKernels;
}

std::string_view activation_name(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kSilu:
      return "silu";
    case ActivationKind::kGeluTanh:
      return "gelu_tanh";
    case ActivationKind::kGeluErf:
      return "gelu_erf";
    case ActivationKind::kSwigluOai:
      return "swiglu_oai";
  }
  return "unknown";
}

std::optional<ActivationKind> activation_from_name(std::string_view name) {
  if (name == "silu") return ActivationKind::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_tanh") return ActivationKind::kGeluTanh;
  if (name == "gelu" || name == "gelu_erf") return ActivationKind::kGeluErf;
  if (name == "swiglu_oai") return ActivationKind::kSwigluOai;
  return std::nullopt;
}

Result<ActivationKind> parse_activation(std::string_view op, std::string_view name) {
  for (const ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kGeluTanh,
                                    ActivationKind::kGeluErf, ActivationKind::kSwigluOai})
    if (name == activation_name(kind)) return kind;
  return invalid_argument(
      "{}: activation: expected silu, gelu_tanh, gelu_erf or swiglu_oai, got \"{}\"", op, name);
}

Status check_activation(std::string_view op, const Activation& activation) {
  const bool oai = activation.kind == ActivationKind::kSwigluOai;
  if (oai && !(activation.limit > 0 && std::isfinite(activation.alpha)))
    return invalid_argument("{}: swiglu_oai: expected limit > 0 and a finite alpha, got {} and {}",
                            op, activation.limit, activation.alpha);
  if (oai && activation.clamp == ActivationClamp::kAfter)
    return invalid_argument("{}: swiglu_oai clamps before, a clamp after it has no meaning", op);
  if (activation.clamp != ActivationClamp::kNone && !(activation.limit > 0))
    return invalid_argument("{}: activation: clamp: expected limit > 0, got {}", op,
                            activation.limit);
  return ok_status();
}

Status glu(const ExecContext& context, ConstMatrixF32 gate, ConstMatrixF32 up,
           const Activation& activation, MatrixF32 out) {
  SLUICE_RETURN_IF_ERROR(check_shape("glu", "gate", gate, gate.rows, gate.cols));
  SLUICE_RETURN_IF_ERROR(check_shape("glu", "up", up, gate.rows, gate.cols));
  SLUICE_RETURN_IF_ERROR(check_shape("glu", "out", out, gate.rows, gate.cols));
  SLUICE_RETURN_IF_ERROR(check_activation("glu", activation));
  ElementwiseTask task = in_place(ElementwiseStep::kGlu, out, 1.0f);
  task.activation = activation;
  task.a = gate.data;
  task.a_stride = gate.stride;
  task.b = up.data;
  task.b_stride = up.stride;
  return run(context, task);
}

Status add(const ExecContext& context, MatrixF32 a, ConstMatrixF32 b) {
  SLUICE_RETURN_IF_ERROR(check_shape("add", "a", a, a.rows, a.cols));
  SLUICE_RETURN_IF_ERROR(check_shape("add", "b", b, a.rows, a.cols));
  ElementwiseTask task = in_place(ElementwiseStep::kAdd, a, 1.0f);
  task.b = b.data;
  task.b_stride = b.stride;
  return run(context, task);
}

Status scale(const ExecContext& context, MatrixF32 a, float s) {
  SLUICE_RETURN_IF_ERROR(check_shape("scale", "a", a, a.rows, a.cols));
  return run(context, in_place(ElementwiseStep::kScale, a, s));
}

Status softcap(const ExecContext& context, MatrixF32 a, float cap) {
  SLUICE_RETURN_IF_ERROR(check_shape("softcap", "a", a, a.rows, a.cols));
  if (!(cap > 0 && std::isfinite(cap)))
    return invalid_argument("softcap: cap: expected a positive number, got {}", cap);
  return run(context, in_place(ElementwiseStep::kSoftcap, a, cap));
}

Status weigh_rows(const ExecContext& context, const WeighRowsArgs& args) {
  const auto pairs = static_cast<int64_t>(args.slots.size());
  if (args.k < 1 || pairs != args.x.rows * args.k || args.weights.size() != args.slots.size())
    return invalid_argument(
        "weigh_rows: slots, weights: expected [T*K] = [{} * {}], got [{}], [{}]", args.x.rows,
        args.k, args.slots.size(), args.weights.size());
  SLUICE_RETURN_IF_ERROR(check_shape("weigh_rows", "out", args.out, args.out.rows, args.x.cols));
  for (const int32_t slot : on_host(context) ? args.slots : std::span<const int32_t>())
    if (slot >= args.out.rows)
      return invalid_argument("weigh_rows: slots: expected below R = {}, got {}", args.out.rows,
                              slot);
  ElementwiseTask task = in_place(ElementwiseStep::kWeigh, args.out, 1.0f);
  task.rows = pairs;
  task.a = task.b = args.x.data;
  task.a_stride = task.b_stride = args.x.stride;
  task.slots = args.slots.data();
  task.weights = args.weights.data();
  task.fan_out = args.k;
  task.rounded = args.rounded;
  return run(context, task);
}

}  // namespace sluice
