// elementwise: every row, on a decode row and on a prefill chunk.
#include "ops/elementwise/elementwise.h"

#include "ops/bench_data.h"
#include "ops/elementwise/kernels.h"

namespace sluice {
namespace {

struct Step {
  const char* name;
  int tensors;  // passes over [T, D]
  Status (*run)(const ExecContext&, MatrixF32, ConstMatrixF32);
};

template <ActivationKind kind>
Status run_glu(const ExecContext& c, MatrixF32 m, ConstMatrixF32 up) {
  return glu(c, up, up, {kind, 1.702f, 7.0f}, m);
}
Status run_add(const ExecContext& c, MatrixF32 m, ConstMatrixF32 b) {
  return add(c, m, b);
}
Status run_softcap(const ExecContext& c, MatrixF32 m, ConstMatrixF32) {
  return softcap(c, m, 30.0f);
}

constexpr Step kSteps[] = {{"silu", 3, run_glu<ActivationKind::kSilu>},
                           {"gelu_tanh", 3, run_glu<ActivationKind::kGeluTanh>},
                           {"gelu_erf", 3, run_glu<ActivationKind::kGeluErf>},
                           {"swiglu_oai", 3, run_glu<ActivationKind::kSwigluOai>},
                           {"add", 3, run_add},
                           {"softcap", 2, run_softcap}};

void declare(const Kernel<ElementwiseKernel>& row, const Step& step, int64_t t) {
  constexpr int64_t d = 2048;
  bench::declare(row.name, std::string(step.name) + "_t" + std::to_string(t),
                 [row, step, t](benchmark::State& state) {
                   const Buffer a = bench::filled(static_cast<size_t>(t * d) * 4);
                   const Buffer b = bench::filled(static_cast<size_t>(t * d) * 4);
                   const auto body = [&](Isa isa) {
                     const Status s = step.run(bench::machine().context(isa), {a.as<float>(), t, d},
                                               {b.as<float>(), t, d});
                     if (!s.ok()) std::abort();
                   };
                   bench::Work work;
                   work.bytes = static_cast<double>(step.tensors * t * d) * 4;
                   work.notes = std::to_string(step.tensors) + " passes over [T, D]";
                   bench::run_beside_reference(state, work, row.isa, body);
                 });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : elementwise_kernels())
    if (bench::runnable(row.isa))
      for (const Step& step : kSteps)
        for (const int64_t t : {1, 512}) declare(row, step, t);
  return bench::main(argc, argv);
}
