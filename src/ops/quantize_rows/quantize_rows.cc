#include "ops/quantize_rows/quantize_rows.h"

#include <atomic>
#include <cmath>
#include <limits>

#include "ops/kernel_table.h"
#include "ops/parallel.h"
#include "ops/quantize_rows/kernels.h"

namespace sluice {
namespace {

constexpr Kernel<QuantizeRowsKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/quantize_rows/kernels.inc"
#undef SLUICE_KERNEL
};

// Elements that make it worth waking a worker: a few microseconds of work.
constexpr int64_t kLeastElements = 16384;

struct Shape {
  int64_t t = 0, d = 0, stride = 0;
  bool narrow = false;  // x is bf16
};

Status check_counts(const QuantizeRowsArgs& a, int64_t t) {
  if (a.counts.empty()) return ok_status();
  if (a.inv_smooth == nullptr)
    return invalid_argument("quantize_rows: counts: expected inv_smooth [E, D] beside them");
  int64_t sum = 0;
  for (size_t e = 0; e < a.counts.size(); ++e) {
    if (a.counts[e] < 0)
      return invalid_argument("quantize_rows: counts[{}]: expected >= 0, got {}", e, a.counts[e]);
    sum += a.counts[e];
  }
  if (sum != t)
    return invalid_argument("quantize_rows: counts: expected a sum of T = {}, got {}", t, sum);
  return ok_status();
}

Status check(const QuantizeRowsArgs& a, const Shape& s) {
  if ((a.x.data != nullptr) == (a.x_bf16.data != nullptr))
    return invalid_argument("quantize_rows: x: expected one of f32 and bf16");
  if (s.d < 1) return invalid_argument("quantize_rows: x: D: expected >= 1, got {}", s.d);
  if (s.stride < s.d)
    return invalid_argument("quantize_rows: x: row stride: expected at least D = {}, got {}", s.d,
                            s.stride);
  if (a.scope == QuantizeScope::kGroup && a.group < 1)
    return invalid_argument("quantize_rows: group: expected >= 1, got {}", a.group);
  if (a.codes.data == nullptr || a.codes.rows != s.t || a.codes.cols != s.d || a.codes.stride < s.d)
    return invalid_argument(
        "quantize_rows: codes: expected [T, D] = [{}, {}], got [{}, {}] with row stride {}", s.t,
        s.d, a.codes.rows, a.codes.cols, a.codes.stride);
  if (a.scales.data == nullptr) return invalid_argument("quantize_rows: scales: is missing");
  if (!std::isfinite(a.scale_bound) || a.scale_bound <= 0)
    return invalid_argument("quantize_rows: scale_bound: expected finite and > 0, got {}",
                            a.scale_bound);
  if (a.to == QuantizeTo::kInt8 && a.scale_type != ScaleType::kF32)
    return invalid_argument("quantize_rows: scale_type: int8 codes have scales of f32 only");
  return check_counts(a, s.t);
}

// Rows [begin, end) of the task, cut where the expert changes.
template <class Body>
void each_expert(const QuantizeRowsArgs& a, const QuantizeRowsTask& all, int64_t element,
                 int64_t begin, int64_t end, const Body& body) {
  int64_t start = 0;
  const size_t experts = a.counts.empty() ? 1 : a.counts.size();
  for (size_t e = 0; e < experts && start < end; ++e) {
    const int64_t stop = a.counts.empty() ? end : start + a.counts[e];
    const int64_t first = start > begin ? start : begin, last = stop < end ? stop : end;
    start = stop;
    if (first >= last) continue;
    QuantizeRowsTask part = all;
    part.x = static_cast<const std::byte*>(all.x) + first * all.x_stride * element;
    part.codes += first * all.codes_stride;
    part.scales.data +=
        all.step == QuantizeStep::kScalesAndCodes ? first * all.scales.row_stride : int64_t{0};
    if (part.smooth != nullptr) part.smooth += static_cast<int64_t>(e) * all.d;
    part.rows = last - first;
    body(part);
  }
}

float rounded(ScaleType type, float v) {
  if (type == ScaleType::kBF16) return round_to_bf16(v);
  if (type == ScaleType::kF16) return f16_to_f32(f32_to_f16(v));
  return v;
}

// 2^ceil(log2 v) of a normal v > 0.
float power_of_two_up(float v) {
  const uint32_t b = f32_to_bits(v);
  return bits_to_f32((b + 0x7fffffu) & 0x7f800000u);
}

}  // namespace

GroupScale group_scale(const QuantizeRule& rule, float amax) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  if (std::isnan(amax)) return {kNan, kNan};
  if (rule.to == QuantizeTo::kInt8) {
    if (std::isinf(amax)) return {kNan, kNan};
    const float scale = (amax > 1e-12f ? amax : 1e-12f) / 127.0f;
    return scale < 1e-6f ? GroupScale{1.0f, 1.0f} : GroupScale{scale, scale};
  }
  const float bound = rounded(rule.scale_type, rule.scale_bound);
  const float most = rounded(rule.scale_type, amax);
  const float bounded = most < bound ? most : bound;
  if (rule.scale_type == ScaleType::kE8M0) {
    const float scale = bounded / 448.0f;
    const float power = power_of_two_up(scale > 1e-10f ? scale : 1e-10f);
    return {power, 1.0f / power};
  }
  const float scale = rounded(rule.scale_type, bounded / 448.0f);
  const float factor = rounded(rule.scale_type, 1.0f / scale);
  return {scale, scale == 0 || !std::isfinite(factor) ? 0.0f : factor};
}

std::span<const Kernel<QuantizeRowsKernel>> quantize_rows_kernels() {
  return kKernels;
}

Status quantize_rows(const ExecContext& context, const QuantizeRowsArgs& args) {
  const bool narrow = args.x_bf16.data != nullptr;
  const Shape shape = narrow ? Shape{args.x_bf16.rows, args.x_bf16.cols, args.x_bf16.stride, true}
                             : Shape{args.x.rows, args.x.cols, args.x.stride, false};
  if (shape.t == 0) return check_counts(args, 0);
  SLUICE_RETURN_IF_ERROR(check(args, shape));
  const auto* kernel = select_kernel(quantize_rows_kernels(), context.isa, narrow ? "bf16" : "f32",
                                     "none", "quantize");
  if (kernel == nullptr) return no_kernel("quantize_rows", context.isa);
  QuantizeRowsTask all;
  all.rule = {args.to, args.scale_type, args.scale_bound};
  all.x = narrow ? static_cast<const void*>(args.x_bf16.data) : args.x.data;
  all.x_stride = shape.stride;
  all.d = shape.d;
  all.group = args.scope == QuantizeScope::kGroup ? args.group : shape.d;
  all.smooth = args.inv_smooth;
  all.codes = args.codes.data;
  all.codes_stride = args.codes.stride;
  all.scales = args.scales;
  const int64_t element = narrow ? 2 : 4;
  const int64_t grain = balanced_grain(context, shape.t, ceil_div(kLeastElements, shape.d));
  if (args.scope == QuantizeScope::kTensor) {
    // Magnitudes compare as their bits do, NaN above all.
    std::atomic<uint32_t> most = 0;
    all.step = QuantizeStep::kAmax;
    parallel_ranges(context, shape.t, grain, [&](int64_t begin, int64_t end) {
      each_expert(args, all, element, begin, end, [&](QuantizeRowsTask& part) {
        float amax = 0;
        part.amax = &amax;
        kernel->run(part);
        const uint32_t bits = f32_to_bits(amax) & 0x7fffffffu;
        uint32_t seen = most.load(std::memory_order_relaxed);
        while (seen < bits && !most.compare_exchange_weak(seen, bits, std::memory_order_relaxed)) {
        }
      });
    });
    all.step = QuantizeStep::kCodes;
    const ScopedFloatEnv env;
    all.given = group_scale(all.rule, bits_to_f32(most.load()));
    *args.scales.data = all.given.scale;
  }
  parallel_ranges(context, shape.t, grain, [&](int64_t begin, int64_t end) {
    each_expert(args, all, element, begin, end, [&](QuantizeRowsTask& part) { kernel->run(part); });
  });
  return ok_status();
}

}  // namespace sluice
