// moe_sort: both views at decode and prefill sizes.
#include "ops/moe_sort/moe_sort.h"

#include "ops/bench_data.h"
#include "ops/kernel_table.h"
#include "ops/moe_sort/kernels.h"

namespace sluice {
namespace {

void declare(const Kernel<MoeSortKernel>& row, int64_t experts, int64_t t, int64_t block) {
  std::string problem = "e";
  problem += std::to_string(experts) + "_k8_t" + std::to_string(t);
  if (block > 0) problem += "_blocks";
  bench::declare(row.name, problem, [experts, t, block](benchmark::State& state) {
    constexpr int64_t k = 8;
    std::vector<int32_t> ids(static_cast<size_t>(t * k)), source(ids.size()), inverse(ids.size());
    uint32_t bits = 1;
    for (int32_t& id : ids) {
      bits = bits * 1664525u + 1013904223u;
      id = static_cast<int32_t>((bits >> 16) % static_cast<uint32_t>(experts));
    }
    std::vector<int32_t> starts(static_cast<size_t>(experts + 1));
    const int64_t capacity = moe_sort_capacity(t * k, experts, block);
    std::vector<int32_t> sorted(static_cast<size_t>(capacity)), blocks(sorted.size());
    MoeSortArgs args;
    args.ids = ids;
    args.k = k;
    args.experts = experts;
    args.starts = starts;
    args.source = source;
    args.inverse = inverse;
    args.block_size = block;
    args.sorted_pairs = sorted;
    args.block_experts = blocks;
    const ExecContext context = bench::machine().context(detect_isa());  // CPUID is slow
    bench::Work work;
    work.bytes = static_cast<double>(t * k) * 4 * 4;
    work.notes = "2 passes over ids, 1 over source and inverse";
    bench::run(state, work, 0, [&] {
      if (!moe_sort(context, args).ok()) std::abort();
    });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : moe_sort_kernels()) {
    if (!bench::runnable(row.isa)) continue;
    for (const int64_t experts : {128, 256})
      for (const int64_t t : {1, 32, 256, 512})
        for (const int64_t block : {0, 16}) declare(row, experts, t, block);
  }
  return bench::main(argc, argv);
}
