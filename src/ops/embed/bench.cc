// embed: every row, from row-major tables and from a tied head's panels.
#include "ops/embed/embed.h"

#include <vector>

#include "ops/bench_data.h"
#include "ops/embed/kernels.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  WeightFormat format;
  WeightLayout layout;
  int64_t t;
};
constexpr int64_t kV = 32768, kD = 2048;
constexpr Problem kProblems[] = {
    {"bf16_t1", WeightFormat::kBF16, WeightLayout::kRowMajor, 1},
    {"bf16_t512", WeightFormat::kBF16, WeightLayout::kRowMajor, 512},
    {"f16_t512", WeightFormat::kF16, WeightLayout::kRowMajor, 512},
    {"f32_t512", WeightFormat::kF32, WeightLayout::kRowMajor, 512},
    {"bf16_panels_t1", WeightFormat::kBF16, WeightLayout::kPanel16, 1},
    {"bf16_panels_t512", WeightFormat::kBF16, WeightLayout::kPanel16, 512},
};

class Operands {
 public:
  explicit Operands(const Problem& p)
      : table_(bench::filled(packed_bytes(p.format, p.layout, kV, kD))),
        out_(bench::filled(static_cast<size_t>(p.t * kD) * 4)) {
    matrix_.format = p.format;
    matrix_.layout = p.layout;
    matrix_.n = kV;
    matrix_.k = kD;
    matrix_.data = table_.data();
    matrix_.bytes = table_.bytes();
    for (int64_t t = 0; t < p.t; ++t) ids_.push_back(static_cast<int32_t>(t * 7919 % kV));
    args_ = {ids_, &matrix_, 2.0f, {out_.as<float>(), p.t, kD}};
  }
  void run(Isa isa) {
    if (!embed(bench::machine().context(isa), args_).ok()) std::abort();
  }

 private:
  Buffer table_, out_;
  PackedMatrix matrix_;
  std::vector<int32_t> ids_;
  EmbedArgs args_;
};

void declare(const Kernel<EmbedKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    Operands in(p);
    bench::Work work;
    const double element = p.format == WeightFormat::kF32 ? 4 : 2;
    // A column of a panel takes whole lines: 64 bytes per step or pair of steps of k.
    const double read = p.layout == WeightLayout::kRowMajor ? element : 16 * element;
    work.bytes = static_cast<double>(p.t * kD) * (read + 4);
    bench::run_beside_reference(state, work, row.isa, [&](Isa isa) { in.run(isa); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  return bench::main(argc, argv, embed_kernels(), kProblems, declare);
}
