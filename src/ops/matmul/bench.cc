// matmul: every row, decode (weights from memory) and prefill.
#include "ops/matmul/matmul.h"

#include <map>

#include "ops/bench_data.h"
#include "ops/matmul/panels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t t, n, k;
};
// The decode shapes read 64 MiB of bf16 (and more of f32): beyond the caches.
constexpr Problem kProblems[] = {
    {"decode_t1", 1, 16384, 2048}, {"decode_t2", 2, 16384, 2048},    {"decode_t4", 4, 16384, 2048},
    {"decode_t8", 8, 16384, 2048}, {"decode_t16", 16, 16384, 2048},  {"cached_t1", 1, 512, 2048},
    {"router_t1", 1, 128, 2048},   {"prefill_t512", 512, 2048, 2048}};

WeightFormat format_of(std::string_view name) {
  return weight_format_from_name(name).value();
}

class Operands {
 public:
  Operands(const Problem& p, WeightFormat format)
      : weights_(bench::filled(packed_bytes(format, WeightLayout::kPanel16, p.n, p.k))),
        x_(bench::filled(static_cast<size_t>(p.t * p.k) * 4)),
        out_(bench::filled(static_cast<size_t>(p.t * p.n) * 4)),
        scratch_(bench::filled(matmul_workspace_bytes(p.t, p.k))) {
    w_.format = format;
    w_.n = p.n;
    w_.k = p.k;
    w_.data = weights_.data();
    w_.bytes = weights_.bytes();
    args_.x = {x_.as<float>(), p.t, p.k};
    args_.w = &w_;
    args_.out = {out_.as<float>(), p.t, p.n};
  }
  void run(Isa isa, Arith arith) {
    args_.arith = arith;
    const Status status =
        matmul(bench::machine().context(isa), args_, {scratch_.data(), scratch_.bytes()});
    if (!status.ok()) std::abort();
  }
  double bytes() const { return static_cast<double>(weights_.bytes() + x_.bytes() + out_.bytes()); }

 private:
  Buffer weights_, x_, out_, scratch_;
  PackedMatrix w_;
  MatmulArgs args_;
};

// Seconds of the reference: measured on 64 columns and one row, scaled.
double reference_seconds(const Problem& p, WeightFormat format, Arith arith) {
  static std::map<std::pair<WeightFormat, Arith>, double> measured;
  double& each = measured[{format, arith}];
  if (each == 0) {
    Operands small({"", 1, 64, 2048}, format);
    small.run(Isa::kReference, arith);
    each = bench::seconds_of([&] { small.run(Isa::kReference, arith); }) / (64.0 * 2048.0);
  }
  return each * static_cast<double>(p.t) * static_cast<double>(p.n) * static_cast<double>(p.k);
}

void declare(const Kernel<const PanelKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    const WeightFormat format = format_of(row.weight);
    const Arith arith = arith_from_name(row.arith).value();
    Operands in(p, format);
    bench::Work work;
    work.bytes = in.bytes();
    work.operations = 2.0 * static_cast<double>(p.t * p.n) * static_cast<double>(p.k);
    bench::run(state, work, reference_seconds(p, format, arith), [&] { in.run(row.isa, arith); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : panel_kernels()) {
    if (!bench::runnable(row.isa)) continue;
    for (const Problem& p : kProblems)
      // The reference takes seconds on the large shapes; one small one shows what it is.
      if (row.isa != Isa::kReference || p.n <= 128) declare(row, p);
  }
  return bench::main(argc, argv);
}
