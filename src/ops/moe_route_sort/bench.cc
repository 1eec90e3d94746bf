// moe_route_sort: one call against the chain of its two pieces, at decode sizes.
#include "ops/moe_route_sort/moe_route_sort.h"

#include "ops/bench_data.h"

namespace sluice {
namespace {

struct Problem {
  int64_t t, experts, k;
};
constexpr Problem kProblems[] = {{1, 128, 8},   {32, 128, 8},  {122, 128, 4},
                                 {256, 128, 8}, {1, 256, 8},   {32, 256, 8},
                                 {60, 256, 8},  {256, 256, 8}, {1, 128, 4}};

class Operands {
 public:
  explicit Operands(const Problem& p)
      : logits_(bench::filled(static_cast<size_t>(p.t * p.experts) * 4)),
        ids_(static_cast<size_t>(p.t * p.k)),
        source_(ids_.size()),
        inverse_(ids_.size()),
        starts_(static_cast<size_t>(p.experts + 1)),
        weights_(ids_.size()) {
    uint32_t bits = 1;
    for (int64_t i = 0; i < p.t * p.experts; ++i) {
      bits = bits * 1664525u + 1013904223u;
      logits_.as<float>()[i] = static_cast<float>(bits >> 8) * 0x1p-22f;
    }
    args_.route.logits = ConstMatrixF32(logits_.as<float>(), p.t, p.experts);
    args_.route.rule.renormalise = true;
    args_.route.k = p.k;
    args_.route.ids = ids_;
    args_.route.weights = weights_;
    args_.sort.experts = p.experts;
    args_.sort.starts = starts_;
    args_.sort.source = source_;
    args_.sort.inverse = inverse_;
  }
  void fused(const ExecContext& context) {
    if (!moe_route_sort(context, args_).ok()) std::abort();
  }
  void chain(const ExecContext& context) {
    MoeSortArgs sort = args_.sort;
    sort.ids = ids_;
    sort.k = args_.route.k;
    if (!moe_route(context, args_.route).ok() || !moe_sort(context, sort).ok()) std::abort();
  }

 private:
  Buffer logits_;
  std::vector<int32_t> ids_, source_, inverse_, starts_;
  std::vector<float> weights_;
  MoeRouteSortArgs args_;
};

void declare(const Problem& p, bool fused) {
  bench::declare(fused ? "moe_route_sort" : "chain",
                 std::string("e") + std::to_string(p.experts) + "_k" + std::to_string(p.k) + "_t" +
                     std::to_string(p.t),
                 [p, fused](benchmark::State& state) {
                   Operands in(p);
                   const ExecContext context = bench::machine().context(detect_isa());
                   const auto body = [&] { fused ? in.fused(context) : in.chain(context); };
                   bench::Work work;
                   work.bytes = static_cast<double>(p.t * (p.experts + 4 * p.k)) * 4;
                   body();
                   const double chain = bench::seconds_of([&] { in.chain(context); });
                   bench::run(state, work, fused ? chain : 0, body);
                 });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const Problem& p : kProblems)
    for (const bool fused : {false, true}) declare(p, fused);
  return bench::main(argc, argv);
}
