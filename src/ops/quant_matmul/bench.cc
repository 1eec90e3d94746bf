// quant_matmul: every row, one token and a prefill chunk, per channel and by group.
#include "ops/quant_matmul/quant_matmul.h"

#include "ops/bench_data.h"
#include "ops/quant_matmul/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t t, n, k, group;
};
constexpr Problem kProblems[] = {
    {"t1_1536x2048", 1, 1536, 2048, 0},
    {"t16_1536x2048", 16, 1536, 2048, 0},
    {"t16_1536x2048_g128", 16, 1536, 2048, 128},
    {"t256_1536x2048", 256, 1536, 2048, 0},
};

class Operands {
 public:
  Operands(const Problem& p, std::string_view weight)
      : x_(bench::filled(static_cast<size_t>(p.t * p.k))),
        scales_(bench::filled(static_cast<size_t>(p.t) * 4)),
        out_(bench::filled(static_cast<size_t>(p.t * p.n) * 4)),
        scratch_(
            bench::filled(quant_matmul_workspace_bytes(p.t, 1, p.k, p.group, QuantCodes::kFp8))) {
    const QuantLayout layout = weight == "fp8"    ? QuantLayout::kFp8
                               : weight == "int8" ? QuantLayout::kInt8
                                                  : QuantLayout::kInt4RowPairs;
    const std::vector<std::byte> codes(static_cast<size_t>(p.n * p.k / (weight == "int4" ? 2 : 1)),
                                       std::byte{0x3f});
    const std::vector<float> scales(
        static_cast<size_t>(p.n * (p.group == 0 ? 1 : ceil_div(p.k, p.group))), 0.5f);
    weights_ = pack_quant_weights(*bench::machine().device,
                                  {layout, codes, scales, p.n, p.k, p.group, 1, p.group})
                   .value();
    args_.x = {x_.as<int8_t>(), p.t, p.k, p.k};
    args_.x_scale = {scales_.as<float>()};
    args_.experts = {&pointer_, 1};
    args_.out = {out_.as<float>(), p.t, p.n, p.n};
  }
  size_t weight_bytes() const { return weights_.bytes; }
  void run(Isa isa) {
    if (!quant_matmul(bench::machine().context(isa), args_, {scratch_.data(), scratch_.bytes()})
             .ok())
      std::abort();
  }

 private:
  Buffer x_, scales_, out_, scratch_;
  QuantWeights weights_;
  const QuantWeights* pointer_ = &weights_;
  QuantMatmulArgs args_;
};

void declare(const Kernel<const QuantKernel>& row, const Problem& p) {
  if (row.isa == Isa::kReference && p.t > 16) return;  // minutes
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    Operands in(p, row.weight);
    bench::Work work;
    work.bytes = static_cast<double>(in.weight_bytes());
    work.operations = 2.0 * static_cast<double>(p.t * p.n * p.k);
    work.notes = "reads the panels; the roof is f32's";
    bench::run(state, work, 0, [&] { in.run(row.isa); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  return bench::main(argc, argv, quant_kernels(), kProblems, declare);
}
