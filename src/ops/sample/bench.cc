// sample: every row, one token from the vocabularies of the families: logits as a language model
// gives them, and flat ones, where no bound on the row helps.
#include "ops/sample/sample.h"

#include <cmath>
#include <vector>

#include "ops/bench_data.h"
#include "ops/sample/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t v;
  float spread;  // standard deviation of the logits
  SamplingParams params;
};

SamplingParams rule(float temperature, int32_t top_k, float top_p) {
  SamplingParams p;
  p.temperature = temperature;
  p.top_k = top_k;
  p.top_p = top_p;
  return p;
}
SamplingParams with_penalties(SamplingParams p) {
  p.repetition_penalty = 1.1f;
  return p;
}
SamplingParams with_logprobs(SamplingParams p) {
  p.logprobs = 20;
  return p;
}
const Problem kProblems[] = {
    {"greedy", 151936, 3, rule(0, 0, 1)},
    {"top_k20_top_p95", 151936, 3, rule(0.6f, 20, 0.95f)},
    {"top_p95", 151936, 3, rule(0.7f, 0, 0.95f)},
    {"top_p95_flat", 151936, 0.1f, rule(1, 0, 0.95f)},
    {"all", 151936, 3, rule(1, 0, 1)},
    {"all_flat", 151936, 0.1f, rule(1, 0, 1)},
    {"top_k64_top_p95_v262144", 262144, 3, rule(1, 64, 0.95f)},
    {"top_p95_flat_v1048576", 1048576, 0.1f, rule(1, 0, 0.95f)},
    {"penalties", 151936, 3, with_penalties(rule(0.6f, 20, 0.95f))},
    {"logprobs", 151936, 3, with_logprobs(rule(0.6f, 20, 0.95f))},
};

class Operands {
 public:
  explicit Operands(const Problem& p)
      : params_(p.params),
        logits_(bench::filled(static_cast<size_t>(p.v) * 4)),
        history_(2000, 17),
        scratch_(bench::filled(sample_workspace_bytes(bench::threads(), p.v))) {
    uint64_t s = 1;
    for (int64_t i = 0; i < p.v; ++i) {
      float sum = 0;  // about normal
      for (int k = 0; k < 12; ++k) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        sum += static_cast<float>(s >> 40) * 0x1p-24f;
      }
      logits_.as<float>()[i] = (sum - 6) * p.spread;
    }
    row_.params = &params_;
    row_.prompt = history_;
    args_ = {{logits_.as<float>(), 1, p.v}, {&row_, 1}};
  }
  void run(Isa isa) {
    ++row_.position;
    const Workspace workspace{scratch_.data(), scratch_.bytes()};
    if (!sample(bench::machine().context(isa), args_, workspace).ok()) std::abort();
  }
  double bytes() const { return static_cast<double>(logits_.bytes()); }

 private:
  SamplingParams params_;
  Buffer logits_;
  std::vector<int32_t> history_;
  Buffer scratch_;
  SampleRow row_;
  SampleArgs args_;
};

void declare(const Kernel<const SampleKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    Operands in(p);
    bench::Work work;
    work.bytes = in.bytes();
    work.notes = "roof: one pass over the logits";
    bench::run_beside_reference(state, work, row.isa, [&](Isa isa) { in.run(isa); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  return bench::main(argc, argv, sample_kernels(), kProblems, declare);
}
