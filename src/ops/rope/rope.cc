#include "ops/rope/rope.h"

#include <cmath>

#include "ops/kernel_table.h"
#include "ops/parallel.h"
#include "ops/rope/kernels.h"

namespace sluice {
namespace {

constexpr Kernel<RopeKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/rope/kernels.inc"
#undef SLUICE_KERNEL
};

constexpr int64_t kLeastElements = 16384;
constexpr int64_t kLeastAngles = 512;      // some 20 ns each
constexpr double kMostFrequency = 0x1p20;  // keeps every angle of an i32 position below 2^51

}  // namespace

std::span<const Kernel<RopeKernel>> rope_kernels() {
  return kKernels;
}

Status rope_angles(const ExecContext& context, const RopeAnglesArgs& args) {
  const int64_t t = static_cast<int64_t>(args.positions.size());
  const int64_t half = static_cast<int64_t>(args.inv_freq.size());
  if (t == 0 || half == 0) return ok_status();
  if (args.cos_sin == nullptr) return invalid_argument("rope_angles: cos_sin: is missing");
  if (!std::isfinite(args.factor))
    return invalid_argument("rope_angles: factor: expected finite, got {}", args.factor);
  for (const double f : args.inv_freq)
    if (!(std::fabs(f) <= kMostFrequency))
      return invalid_argument("rope_angles: inv_freq: expected at most {} in size, got {}",
                              kMostFrequency, f);
  const auto* kernel = select_kernel(rope_kernels(), context.isa, "f64", "none", "f64_angle");
  if (kernel == nullptr) return no_kernel("rope_angles", context.isa);
  RopeRows all;
  all.half = half;
  all.positions = args.positions.data();
  all.inv_freq = args.inv_freq.data();
  all.factor = args.factor;
  all.table = args.cos_sin;
  all.stream = context.stream;
  const int64_t grain = balanced_grain(context, t, ceil_div(kLeastAngles, half));
  parallel_ranges(context, t, grain, [&](int64_t begin, int64_t end) {
    RopeRows part = all;
    part.positions += begin;
    part.table += begin * half * 2;
    part.rows = end - begin;
    kernel->run(part);
  });
  return ok_status();
}

Status rope(const ExecContext& context, const RopeArgs& args) {
  const MatrixF32& x = args.x;
  if (args.head_size < 2 || args.head_size % 2 != 0)
    return invalid_argument("rope: C: expected even and >= 2, got {}", args.head_size);
  if (x.cols % args.head_size != 0)
    return invalid_argument("rope: x: H*C: expected a multiple of C = {}, got {}", args.head_size,
                            x.cols);
  if (x.rows == 0 || x.cols == 0) return ok_status();
  if (x.stride < x.cols)
    return invalid_argument("rope: x: row stride: expected at least H*C = {}, got {}", x.cols,
                            x.stride);
  if (x.data == nullptr || args.cos_sin == nullptr)
    return invalid_argument("rope: {}: is missing", x.data == nullptr ? "x" : "cos_sin");
  const auto* kernel = select_kernel(rope_kernels(), context.isa, "f32", "none", "half_split");
  if (kernel == nullptr) return no_kernel("rope", context.isa);
  RopeRows all;
  all.x = x.data;
  all.stride = x.stride;
  all.half = args.head_size / 2;
  all.heads = x.cols / args.head_size;
  all.cos_sin = args.cos_sin;
  all.stream = context.stream;
  const int64_t grain = balanced_grain(context, x.rows, ceil_div(kLeastElements, x.cols));
  parallel_ranges(context, x.rows, grain, [&](int64_t begin, int64_t end) {
    RopeRows part = all;
    part.x += begin * all.stride;
    part.cos_sin += begin * all.half * 2;
    part.rows = end - begin;
    kernel->run(part);
  });
  return ok_status();
}

}  // namespace sluice
