#include "rates.h"

#include <algorithm>
#include <functional>

#include "coprocess.h"
#include "device/cpu/probe.h"

namespace peers {

using namespace sluice;

namespace {

double best_gops(const ExecContext& context, double operations, const std::function<void()>& body) {
  double best = 1e30;
  for (int i = 0; i < 15; ++i) {
    const double start = microseconds();
    context.pool->parallel_for(context.pool->size(), 1, [&](int64_t, int) { body(); });
    best = std::min(best, microseconds() - start);
  }
  return operations * context.pool->size() / best / 1e3;
}

}  // namespace

SumKernel sum_kernel(Isa isa) {
#ifdef SLUICE_X86
  if (isa >= Isa::kAvx512) return probe_avx512.sum;
  if (isa >= Isa::kAvx2) return probe_avx2.sum;
#endif
  return probe_reference.sum;
}

std::vector<std::pair<std::string, double>> rates(const ExecContext& context) {
  const double fma = probe_cpu(context).fma_gflops;
  double int8 = fma, bf16 = fma;
#ifdef SLUICE_X86
  constexpr int64_t kRounds = 200000;
  if (context.isa >= Isa::kAvx2)
    int8 = best_gops(context, 8 * 64.0 * kRounds * 10, [] { pair_int8_rounds(kRounds * 10); });
  if (context.isa >= Isa::kAvx512Vnni)
    int8 = best_gops(context, 12 * 128.0 * kRounds * 10, [] { dot_int8_rounds(kRounds * 10); });
  if (context.isa >= Isa::kAmx) {
    int8 = std::max(int8,
                    best_gops(context, 4 * 32768.0 * kRounds, [] { tile_int8_rounds(kRounds); }));
    bf16 = std::max(bf16,
                    best_gops(context, 4 * 16384.0 * kRounds, [] { tile_bf16_rounds(kRounds); }));
  }
#endif
  return {{"fma", fma}, {"bf16", bf16}, {"int8", int8}};
}

}  // namespace peers
