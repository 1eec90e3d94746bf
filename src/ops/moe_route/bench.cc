// moe_route: every row, on the routers of the three families and on the largest that is allowed.
#include "ops/moe_route/moe_route.h"

#include "ops/bench_data.h"
#include "ops/moe_route/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t t, experts, k;
  RouteScore score;
};
constexpr Problem kProblems[] = {
    {"e128_k8_t1", 1, 128, 8, RouteScore::kSoftmaxAll},
    {"e128_k8_t512", 512, 128, 8, RouteScore::kSoftmaxAll},
    {"e32_k4_t512", 512, 32, 4, RouteScore::kSoftmaxSelected},
    {"e256_k8_sigmoid_t512", 512, 256, 8, RouteScore::kSigmoid},
    {"e4096_k64_t64", 64, 4096, 64, RouteScore::kSoftmaxAll},
};

void declare(const Kernel<MoeRouteKernel>& row, const Problem& p) {
  const std::string name = std::string(row.name) + "/" + p.name;
  benchmark::RegisterBenchmark(
      name.c_str(),
      [row, p](benchmark::State& state) {
        const Buffer logits = bench::filled(static_cast<size_t>(p.t * p.experts) * 4);
        uint32_t bits = 1;
        for (int64_t i = 0; i < p.t * p.experts; ++i) {
          bits = bits * 1664525u + 1013904223u;
          logits.as<float>()[i] = static_cast<float>(bits >> 8) * 0x1p-22f;
        }
        std::vector<int32_t> ids(static_cast<size_t>(p.t * p.k));
        std::vector<float> weights(ids.size());
        MoeRouteArgs args;
        args.logits = ConstMatrixF32(logits.as<float>(), p.t, p.experts);
        args.rule.score = p.score;
        args.rule.renormalise = true;
        args.k = p.k;
        args.ids = ids;
        args.weights = weights;
        const auto body = [&](Isa isa) {
          if (!moe_route(bench::machine().context(isa), args).ok()) std::abort();
        };
        bench::Work work;
        work.bytes = static_cast<double>(p.t * (p.experts + 2 * p.k)) * 4;
        work.notes = "1 pass over [T, E]";
        const double reference = bench::seconds_of([&] { body(Isa::kReference); });
        bench::run(state, work, reference, [&] { body(row.isa); });
      })
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : moe_route_kernels())
    if (bench::runnable(row.isa))
      for (const Problem& p : kProblems) declare(row, p);
  return bench::main(argc, argv);
}
