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
    {"e128_k8_t32", 32, 128, 8, RouteScore::kSoftmaxAll},
    {"e128_k8_t256", 256, 128, 8, RouteScore::kSoftmaxAll},
    {"e32_k4_t512", 512, 32, 4, RouteScore::kSoftmaxSelected},
    {"e256_k8_t1", 1, 256, 8, RouteScore::kSoftmaxAll},
    {"e256_k8_t256", 256, 256, 8, RouteScore::kSoftmaxAll},
    {"e256_k8_g8_t1", 1, 256, 8, RouteScore::kSigmoid},
    {"e256_k8_g8_t256", 256, 256, 8, RouteScore::kSigmoid},
    {"e4096_k64_t64", 64, 4096, 64, RouteScore::kSoftmaxAll},
};

void declare(const Kernel<MoeRouteKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    const Buffer logits = bench::filled(static_cast<size_t>(p.t * p.experts) * 4);
    uint32_t bits = 1;
    for (int64_t i = 0; i < p.t * p.experts; ++i) {
      bits = bits * 1664525u + 1013904223u;
      if (row.in == "f32")
        logits.as<float>()[i] = static_cast<float>(bits >> 8) * 0x1p-22f;
      else  // finite in either 16-bit format
        logits.as<uint16_t>()[i] = static_cast<uint16_t>(0x3c00u + (bits >> 22));
    }
    std::vector<int32_t> ids(static_cast<size_t>(p.t * p.k));
    std::vector<float> weights(ids.size());
    MoeRouteArgs args;
    const DType dtype = row.in == "f32"    ? DType::kF32
                        : row.in == "bf16" ? DType::kBF16
                                           : DType::kF16;
    args.logits = {logits.data(), dtype, p.t, p.experts, p.experts};
    args.rule.score = p.score;
    args.rule.renormalise = true;
    if (p.score == RouteScore::kSigmoid) args.rule.groups = {8, 4, GroupScore::kSumOf2};
    args.k = p.k;
    args.ids = ids;
    args.weights = weights;
    const auto body = [&](Isa isa) {
      if (!moe_route(bench::machine().context(isa), args).ok()) std::abort();
    };
    bench::Work work;
    work.bytes = static_cast<double>(p.t * (p.experts + 2 * p.k)) * 4;
    work.notes = "1 pass over [T, E]";
    bench::run_beside_reference(state, work, row.isa, body);
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  return bench::main(argc, argv, moe_route_kernels(), kProblems, declare);
}
