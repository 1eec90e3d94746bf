// kv_write: every row, a decode row and a prefill chunk.
#include "ops/kv_write/kv_write.h"

#include <numeric>
#include <vector>

#include "ops/bench_data.h"
#include "ops/kv_write/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t t, g, c;
};
constexpr Problem kProblems[] = {
    {"t1_g4_c128", 1, 4, 128}, {"t512_g4_c128", 512, 4, 128}, {"t512_g2_c512", 512, 2, 512}};

class Operands {
 public:
  Operands(const Problem& p, DType dtype)
      : k_(bench::filled(static_cast<size_t>(p.t * p.g * p.c) * 4)),
        v_(bench::filled(k_.bytes())),
        slots_(static_cast<size_t>(p.t)) {
    std::iota(slots_.begin(), slots_.end(), 0);
    args_.cache = {dtype, nullptr, ceil_div(p.t, kKvBlock), p.g, p.c};
    pool_ = bench::filled(static_cast<size_t>(args_.cache.blocks * args_.cache.block_elements()) *
                          (dtype == DType::kF32 ? 4 : 2));
    args_.cache.data = pool_.data();
    args_.k = {k_.as<float>(), p.t, p.g * p.c};
    args_.v = {v_.as<float>(), p.t, p.g * p.c};
    args_.slots = slots_;
  }
  void run(Isa isa) {
    if (!kv_write(bench::machine().context(isa), args_).ok()) std::abort();
  }
  double bytes() const {
    const double element = args_.cache.dtype == DType::kF32 ? 4 : 2;
    return static_cast<double>(k_.bytes() + v_.bytes()) * (1 + element / 4);
  }

 private:
  Buffer k_, v_, pool_;
  std::vector<int32_t> slots_;
  KvWriteArgs args_;
};

void declare(const Kernel<KvWriteKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    Operands in(p, row.in == "f32" ? DType::kF32 : DType::kBF16);
    bench::Work work;
    work.bytes = in.bytes();
    bench::run_beside_reference(state, work, row.isa, [&](Isa isa) { in.run(isa); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  return bench::main(argc, argv, kv_write_kernels(), kProblems, declare);
}
