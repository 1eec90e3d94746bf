// router_norm: every row, a decode row and a prefill chunk of Gemma 4's width.
#include "ops/router_norm/router_norm.h"

#include "ops/bench_data.h"
#include "ops/router_norm/kernels.h"

namespace sluice {
namespace {

void declare(const Kernel<RouterNormKernel>& row, int64_t t, bool round) {
  bench::declare(row.name, std::string("d2816_t") + std::to_string(t) + (round ? "_bf16" : ""),
                 [row, t, round](benchmark::State& state) {
                   constexpr int64_t d = 2816;
                   const Buffer x = bench::filled(static_cast<size_t>(t * d) * 4);
                   const Buffer out = bench::filled(x.bytes()), scale = bench::filled(d * 4);
                   const RouterNormArgs args = {ConstMatrixF32(x.as<float>(), t, d),
                                                scale.as<float>(), 1e-6f, round,
                                                MatrixF32(out.as<float>(), t, d)};
                   const auto body = [&](Isa isa) {
                     if (!router_norm(bench::machine().context(isa), args).ok()) std::abort();
                   };
                   bench::Work work;
                   work.bytes = 2.0 * static_cast<double>(x.bytes());
                   work.notes = "reads x, writes out";
                   bench::run_beside_reference(state, work, row.isa, body);
                 });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : router_norm_kernels())
    for (const int64_t t : {1, 128})
      for (const bool round : {false, true})
        if (bench::runnable(row.isa)) declare(row, t, round);
  return bench::main(argc, argv);
}
