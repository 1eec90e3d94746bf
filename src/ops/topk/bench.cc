// topk: every row, the vocabularies of the families, random and adversarial orders.
#include "ops/topk/topk.h"

#include <vector>

#include "ops/bench_data.h"
#include "ops/topk/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t n, k;
  float (*value)(int64_t i);
};
float scattered(int64_t i) {
  return static_cast<float>((static_cast<uint64_t>(i) * 2654435761u) % 1000003u) * 1e-5f;
}
float rising(int64_t i) {
  return static_cast<float>(i);
}
float zero(int64_t) {
  return 0.0f;
}
constexpr Problem kProblems[] = {
    {"v151936_k20", 151936, 20, scattered},     {"v262144_k1", 262144, 1, scattered},
    {"v262144_k20", 262144, 20, scattered},     {"v262144_k1024", 262144, 1024, scattered},
    {"v262144_k20_rising", 262144, 20, rising}, {"v262144_k20_zeros", 262144, 20, zero}};

class Operands {
 public:
  explicit Operands(const Problem& p)
      : x_(bench::filled(static_cast<size_t>(p.n) * 4)),
        ids_(static_cast<size_t>(p.k)),
        values_(ids_.size()) {
    for (int64_t i = 0; i < p.n; ++i) x_.as<float>()[i] = p.value(i);
    args_ = {{x_.as<float>(), 1, p.n}, p.k, ids_, values_};
  }
  void run(Isa isa) {
    if (!topk(bench::machine().context(isa), args_).ok()) std::abort();
  }
  double bytes() const { return static_cast<double>(x_.bytes()); }

 private:
  Buffer x_;
  std::vector<int32_t> ids_;
  std::vector<float> values_;
  TopkArgs args_;
};

void declare(const Kernel<TopkKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    Operands in(p);
    bench::Work work;
    work.bytes = in.bytes();
    bench::run_beside_reference(state, work, row.isa, [&](Isa isa) { in.run(isa); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  return bench::main(argc, argv, topk_kernels(), kProblems, declare);
}
