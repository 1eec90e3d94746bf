// rope: every row, queries of a decode row and of a prefill chunk; the table of angles.
#include "ops/rope/rope.h"

#include <vector>

#include "ops/bench_data.h"
#include "ops/rope/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t t, heads, c;
};
constexpr Problem kProblems[] = {
    {"t1_h32_c128", 1, 32, 128}, {"t512_h32_c128", 512, 32, 128}, {"t512_h2_c512", 512, 2, 512}};

class Operands {
 public:
  explicit Operands(const Problem& p)
      : x_(bench::filled(static_cast<size_t>(p.t * p.heads * p.c) * 4)),
        table_(bench::filled(static_cast<size_t>(p.t * p.c) * 4)) {
    args_ = {{x_.as<float>(), p.t, p.heads * p.c}, p.c, table_.as<float>()};
    // cos 1 and sin 0: the values stay as they are however often they are turned.
    for (int64_t i = 0; i < p.t * p.c; ++i) table_.as<float>()[i] = static_cast<float>(1 - i % 2);
  }
  void run(Isa isa) {
    if (!rope(bench::machine().context(isa), args_).ok()) std::abort();
  }
  double bytes() const { return static_cast<double>(2 * x_.bytes() + table_.bytes()); }

 private:
  Buffer x_, table_;
  RopeArgs args_;
};

void declare(const Kernel<RopeKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    Operands in(p);
    bench::Work work;
    work.bytes = in.bytes();
    work.notes = "reads and writes x, reads the table";
    bench::run_beside_reference(state, work, row.isa, [&](Isa isa) { in.run(isa); });
  });
}

void angles(benchmark::State& state) {
  const int64_t t = state.range(0), half = 64;
  std::vector<int32_t> positions(static_cast<size_t>(t), 12345);
  const std::vector<double> f(static_cast<size_t>(half), 0.01);
  std::vector<float> table(static_cast<size_t>(t * half * 2));
  bench::Work work;
  work.bytes = static_cast<double>(table.size()) * 4;
  work.notes = "once per step, not per layer";
  bench::run(state, work, 0, [&] {
    const RopeAnglesArgs args{positions, f, 1.0, table.data()};
    if (!rope_angles(bench::machine().context(Isa::kReference), args).ok()) std::abort();
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : rope_kernels()) {
    if (row.arith != "half_split") continue;
    for (const Problem& p : kProblems)
      if (bench::runnable(row.isa)) declare(row, p);
  }
  benchmark::RegisterBenchmark("rope_angles/c128", angles)
      ->Arg(1)
      ->Arg(512)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
  return bench::main(argc, argv);
}
