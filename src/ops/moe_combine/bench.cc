// moe_combine: every row, plain and fused, beside the chain that the fused forms replace.
#include "ops/moe_combine/moe_combine.h"

#include "ops/bench_data.h"
#include "ops/moe_combine/kernels.h"
#include "ops/rms_norm/rms_norm.h"

namespace sluice {
namespace {

constexpr int64_t kK = 8, kD = 2048;

struct Operands {
  explicit Operands(int64_t t)
      : y(bench::filled(static_cast<size_t>(t * kK * kD) * 4)),
        out(bench::filled(static_cast<size_t>(t * kD) * 4)),
        norm_weight(bench::filled(kD * 4)),
        inverse(static_cast<size_t>(t * kK)),
        weights(inverse.size(), 0.125f) {
    // Slots as sorting leaves them: a token's rows lie far apart.
    for (int64_t i = 0; i < t * kK; ++i)
      inverse[static_cast<size_t>(i)] = static_cast<int32_t>(i % kK * t + i / kK);
    args.y = {y.as<float>(), t * kK, kD};
    args.inverse = inverse;
    args.weights = weights;
    args.k = kK;
    args.norm_weight = norm_weight.as<float>();
    args.out = args.residual = {out.as<float>(), t, kD};
  }
  void run(Isa isa, CombineThen then) {
    args.then = then;
    if (!moe_combine(bench::machine().context(isa), args).ok()) std::abort();
  }
  void normalise(Isa isa) {
    RmsNormArgs norm;
    norm.x = args.out;
    norm.weight = args.norm_weight;
    norm.out = args.out;
    if (!rms_norm(bench::machine().context(isa), norm).ok()) std::abort();
  }
  Buffer y, out, norm_weight;
  std::vector<int32_t> inverse;
  std::vector<float> weights;
  MoeCombineArgs args;
};

struct Form {
  const char* name;
  CombineThen then;
  bool chain;   // combine, then rms_norm as an op of its own
  int outputs;  // passes over [T, D] beside the one over y
};
constexpr Form kForms[] = {{"store", CombineThen::kStore, false, 1},
                           {"residual_add", CombineThen::kResidualAdd, false, 2},
                           {"rms_norm", CombineThen::kRmsNorm, false, 1},
                           {"chain_rms_norm", CombineThen::kStore, true, 3}};

void declare(const Kernel<MoeCombineKernel>& row, const Form& form, int64_t t) {
  bench::declare(row.name, std::string(form.name) + "_t" + std::to_string(t),
                 [row, form, t](benchmark::State& state) {
                   Operands in(t);
                   const auto body = [&](Isa isa) {
                     in.run(isa, form.then);
                     if (form.chain) in.normalise(isa);
                   };
                   bench::Work work;
                   work.bytes = static_cast<double>(t * kD * (kK + form.outputs)) * 4;
                   work.operations = static_cast<double>(t * kD * kK) * 2;
                   work.notes =
                       "1 pass over y [T*K, D], " + std::to_string(form.outputs) + " over [T, D]";
                   bench::run_beside_reference(state, work, row.isa, body);
                 });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : moe_combine_kernels())
    if (bench::runnable(row.isa))
      for (const Form& form : kForms)
        for (const int64_t t : {1, 256}) declare(row, form, t);
  return bench::main(argc, argv);
}
