// quantize_rows: every row and rule, a decode row and a prefill chunk.
#include "ops/quantize_rows/quantize_rows.h"

#include "ops/bench_data.h"
#include "ops/quantize_rows/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  QuantizeTo to;
  int64_t t, d, group;
};
constexpr Problem kProblems[] = {
    {"int8_t1", QuantizeTo::kInt8, 1, 2880, 2880},
    {"int8_t512", QuantizeTo::kInt8, 512, 2880, 2880},
    {"e4m3_t512", QuantizeTo::kE4m3, 512, 2880, 2880},
    {"e4m3_t512_g128", QuantizeTo::kE4m3, 512, 2880, 128},
};

class Operands {
 public:
  Operands(const Problem& p, bool narrow)
      : x_(bench::filled(static_cast<size_t>(p.t * p.d) * 4)),
        codes_(bench::filled(static_cast<size_t>(p.t * p.d))),
        scales_(bench::filled(static_cast<size_t>(p.t * ceil_div(p.d, p.group)) * 4)) {
    args_.to = p.to;
    args_.scope = QuantizeScope::kGroup;
    args_.group = p.group;
    if (narrow)
      args_.x_bf16 = {x_.as<bf16>(), p.t, p.d};
    else
      args_.x = {x_.as<float>(), p.t, p.d};
    args_.codes = {codes_.as<uint8_t>(), p.t, p.d};
    args_.scales = {scales_.as<float>(), ceil_div(p.d, p.group), 1};
  }
  void run(Isa isa) {
    if (!quantize_rows(bench::machine().context(isa), args_).ok()) std::abort();
  }

 private:
  Buffer x_, codes_, scales_;
  QuantizeRowsArgs args_;
};

void declare(const Kernel<QuantizeRowsKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    const bool narrow = row.in == "bf16";
    Operands in(p, narrow);
    bench::Work work;
    work.bytes = static_cast<double>(p.t * p.d) * (narrow ? 3 : 5);
    work.notes = "reads x, writes codes";
    bench::run_beside_reference(state, work, row.isa, [&](Isa isa) { in.run(isa); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  return bench::main(argc, argv, quantize_rows_kernels(), kProblems, declare);
}
