// grouped_matmul: every product row on the expert shapes of a 30B-A3B layer (D 2048, I 768), decode
// (8 experts of one row, another 8 each time) and prefill.
#include "ops/grouped_matmul/grouped_matmul.h"

#include "ops/bench_data.h"
#include "ops/matmul/panels.h"

namespace sluice {
namespace {

constexpr int64_t kD = 2048, kI = 768, kExperts = 64, kK = 8;

WeightFormat format_of(std::string_view name) {
  return weight_format_from_name(name).value();
}

class Operands {
 public:
  Operands(WeightFormat format, int64_t t)
      : t_(t),
        slots_(t * kK),
        each_(packed_bytes(format, WeightLayout::kGluPanel16, 2 * kI, kD)),
        weights_(bench::filled(each_ * kExperts)),
        x_(bench::filled(static_cast<size_t>(t * kD) * 4)),
        out_(bench::filled(static_cast<size_t>(slots_ * kI) * 4)),
        scratch_(bench::filled(grouped_matmul_workspace_bytes(slots_, kD))),
        matrices_(kExperts),
        source_(static_cast<size_t>(slots_)),
        starts_(kExperts + 1) {
    for (int64_t e = 0; e < kExperts; ++e) {
      PackedMatrix& m = matrices_[static_cast<size_t>(e)];
      m.format = format;
      m.layout = WeightLayout::kGluPanel16;
      m.n = 2 * kI;
      m.k = kD;
      m.data = weights_.data() + each_ * static_cast<size_t>(e);
      m.bytes = each_;
      experts_.push_back(&m);
    }
    for (int64_t s = 0; s < slots_; ++s)
      source_[static_cast<size_t>(s)] = static_cast<int32_t>(s % t);
  }
  // Decode: the next eight experts get one row each; prefill: every expert the same number.
  void run(Isa isa, Arith arith) {
    const int64_t first = turn_++ % (kExperts / kK) * kK;
    for (int64_t e = 0; e <= kExperts; ++e) {
      const int64_t used = t_ == 1 ? std::clamp(e - first, int64_t{0}, kK) : slots_ * e / kExperts;
      starts_[static_cast<size_t>(e)] = static_cast<int32_t>(used);
    }
    GroupedMatmulArgs args;
    args.arith = arith;
    args.x = {x_.as<float>(), t_, kD};
    args.source = source_;
    args.starts = starts_;
    args.experts = experts_;
    args.glu = true;
    args.out = {out_.as<float>(), slots_, kI};
    const Status s =
        grouped_matmul(bench::machine().context(isa), args, {scratch_.data(), scratch_.bytes()});
    if (!s.ok()) std::abort();
  }
  double bytes() const {
    const int64_t used = t_ == 1 ? kK : kExperts;
    return static_cast<double>(each_) * static_cast<double>(used) +
           static_cast<double>(slots_ * (kD + kI)) * 4;
  }

 private:
  int64_t t_, slots_, turn_ = 0;
  size_t each_;
  Buffer weights_, x_, out_, scratch_;
  std::vector<PackedMatrix> matrices_;
  std::vector<const PackedMatrix*> experts_;
  std::vector<int32_t> source_, starts_;
};

void declare(const Kernel<const PanelKernel>& row, int64_t t) {
  const Arith arith = arith_from_name(row.arith).value();
  bench::declare("grouped_" + std::string(row.name), std::string("glu_t") + std::to_string(t),
                 [row, arith, t](benchmark::State& state) {
                   Operands in(format_of(row.weight), t);
                   bench::Work work;
                   work.bytes = in.bytes();
                   work.operations =
                       2.0 * static_cast<double>(t * kK) * static_cast<double>(kD * 2 * kI);
                   work.notes = "1 pass over the weights of experts with rows";
                   // ops/matmul/bench.cc has their ratios to the reference.
                   bench::run(state, work, 0, [&] { in.run(row.isa, arith); });
                 });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : panel_kernels())
    if (bench::runnable(row.isa) && row.isa != Isa::kReference)
      for (const int64_t t : {1, 16, 256}) declare(row, t);
  return bench::main(argc, argv);
}
