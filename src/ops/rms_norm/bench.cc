// rms_norm: every row and mode, a decode row, a prefill chunk and the heads of a chunk.
#include "ops/rms_norm/rms_norm.h"

#include "ops/bench_data.h"
#include "ops/rms_norm/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  RmsNormMode mode;
  int64_t t, d;
  double passes;      // over a [T, D] tensor in memory
  const char* notes;  // of the fused mode and of the chain that it replaces
};
constexpr RmsNormMode kNorm = RmsNormMode::kNorm, kBefore = RmsNormMode::kResidualThenNorm,
                      kAfter = RmsNormMode::kNormThenResidual;
constexpr Problem kProblems[] = {
    {"norm_t1", kNorm, 1, 2048, 2, "reads x, writes out"},
    {"norm_t512", kNorm, 512, 2048, 2, "reads x, writes out"},
    {"norm_heads_16384x128", kNorm, 16384, 128, 2, "reads x, writes out"},
    {"residual_then_norm_t1", kBefore, 1, 2048, 4, "4 passes; add, then norm: 5"},
    {"residual_then_norm_t512", kBefore, 512, 2048, 4, "4 passes; add, then norm: 5"},
    {"norm_then_residual_t512", kAfter, 512, 2816, 3, "3 passes; norm, add, scale: 7"},
};

class Operands {
 public:
  explicit Operands(const Problem& p)
      : x_(bench::filled(bytes(p))),
        residual_(bench::filled(bytes(p))),
        out_(bench::filled(bytes(p))),
        weight_(bench::filled(static_cast<size_t>(p.d) * 4)) {
    args_.mode = p.mode;
    args_.x = {x_.as<float>(), p.t, p.d};
    args_.weight = weight_.as<float>();
    args_.scale = 0.5f;
    args_.residual = {residual_.as<float>(), p.t, p.d};
    args_.out = {out_.as<float>(), p.t, p.d};
  }
  void run(Isa isa) {
    if (!rms_norm(bench::machine().context(isa), args_).ok()) std::abort();
  }
  static size_t bytes(const Problem& p) { return static_cast<size_t>(p.t * p.d) * 4; }

 private:
  Buffer x_, residual_, out_, weight_;
  RmsNormArgs args_;
};

void declare(const Kernel<RmsNormKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    Operands in(p);
    bench::Work work;
    work.bytes = p.passes * static_cast<double>(Operands::bytes(p));
    work.notes = p.notes;
    bench::run_beside_reference(state, work, row.isa, [&](Isa isa) { in.run(isa); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  return bench::main(argc, argv, rms_norm_kernels(), kProblems, declare);
}
