// moe_experts: the whole layer beside its chain (sort, grouped glu, grouped, combine), decode and
// prefill on a 30B-A3B layer (D 2048, I 768), and on a small model's layer, where overheads show.
#include "ops/moe_experts/moe_experts.h"

#include <cmath>

#include "ops/bench_data.h"
#include "ops/grouped_matmul/grouped_matmul.h"
#include "ops/matmul/panels.h"
#include "ops/moe_sort/moe_sort.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t t, experts, k, d, width;
  // Uniformly random routes over copies of the layer that fill more than 2 GiB together: some
  // machines have third-level caches of hundreds of MiB.
  bool rotate = false;
};
constexpr Problem kProblems[] = {{"large_t1", 1, 64, 8, 2048, 768},
                                 {"large_t16", 16, 64, 8, 2048, 768},
                                 {"large_t256", 256, 64, 8, 2048, 768},
                                 {"small_t1", 1, 16, 2, 256, 256},
                                 {"small_t64", 64, 16, 2, 256, 256},
                                 {"qwen3_t1", 1, 128, 8, 2048, 768, true},
                                 {"qwen3_t2", 2, 128, 8, 2048, 768, true},
                                 {"qwen3_t4", 4, 128, 8, 2048, 768, true},
                                 {"qwen3_t8", 8, 128, 8, 2048, 768, true},
                                 {"qwen3_t16", 16, 128, 8, 2048, 768, true},
                                 {"qwen3_t64", 64, 128, 8, 2048, 768, true},
                                 {"qwen3_t512", 512, 128, 8, 2048, 768, true},
                                 {"qwen3_t2048", 2048, 128, 8, 2048, 768, true}};
constexpr size_t kRotatedBytes = size_t{2200} << 20;

int64_t copies(const Problem& p, size_t expert_bytes) {
  const size_t layer = expert_bytes * static_cast<size_t>(p.experts);
  return p.rotate ? static_cast<int64_t>((kRotatedBytes + layer - 1) / layer) : 1;
}

class Layer {
 public:
  Layer(const Problem& p, WeightFormat format)
      : p_(p),
        up_bytes_(packed_bytes(format, WeightLayout::kGluPanel16, 2 * p.width, p.d)),
        down_bytes_(packed_bytes(format, WeightLayout::kPanel16, p.d, p.width)),
        copies_(copies(p, up_bytes_ + down_bytes_)),
        up_(bench::filled(up_bytes_ * static_cast<size_t>(p.experts * copies_))),
        down_(bench::filled(down_bytes_ * static_cast<size_t>(p.experts * copies_))),
        x_(floats(p.t * p.d)),
        out_(floats(p.t * p.d)),
        hidden_(floats(p.t * p.k * p.width)),
        rows_(floats(p.t * p.k * p.d)),
        scratch_(bench::filled(moe_experts_workspace_bytes({p.t, p.k, p.experts, p.d, p.width}) +
                               grouped_matmul_workspace_bytes(p.t * p.k, p.d + p.width))),
        matrices_(static_cast<size_t>(2 * p.experts * copies_)),
        ids_(static_cast<size_t>(p.t * p.k)),
        starts_(static_cast<size_t>(p.experts + 1)),
        source_(ids_.size()),
        inverse_(ids_.size()),
        weights_(ids_.size(), 0.125f) {
    for (int64_t e = 0; e < p.experts * copies_; ++e) {
      up_ptrs_.push_back(declare(2 * e, format, WeightLayout::kGluPanel16, 2 * p.width, p.d,
                                 up_.data() + up_bytes_ * static_cast<size_t>(e), up_bytes_));
      down_ptrs_.push_back(declare(2 * e + 1, format, WeightLayout::kPanel16, p.d, p.width,
                                   down_.data() + down_bytes_ * static_cast<size_t>(e),
                                   down_bytes_));
    }
  }

  // Outside of the time that is taken.
  void next() {
    if (p_.rotate) route_at_random();
  }
  void fused(Isa isa, Arith arith) {
    route();
    MoeExpertsArgs a;
    a.arith = arith;
    a.x = {x_.as<float>(), p_.t, p_.d};
    a.ids = ids_;
    a.weights = weights_;
    a.k = p_.k;
    a.experts.gate_up = layer_of(up_ptrs_);
    a.experts.down = layer_of(down_ptrs_);
    a.experts.width = p_.width;
    a.then = CombineThen::kResidualAdd;
    a.residual = {out_.as<float>(), p_.t, p_.d};
    if (!moe_experts(context(isa), a, workspace()).ok()) std::abort();
  }

  void chain(Isa isa, Arith arith) {
    route();
    MoeSortArgs sort;
    sort.ids = ids_;
    sort.k = p_.k;
    sort.experts = p_.experts;
    sort.starts = starts_;
    sort.source = source_;
    sort.inverse = inverse_;
    if (!moe_sort(context(isa), sort).ok()) std::abort();
    GroupedMatmulArgs up;
    up.arith = arith;
    up.x = {x_.as<float>(), p_.t, p_.d};
    up.source = source_;
    up.starts = starts_;
    up.experts = layer_of(up_ptrs_);
    up.glu = true;
    up.out = {hidden_.as<float>(), p_.t * p_.k, p_.width};
    if (!grouped_matmul(context(isa), up, workspace()).ok()) std::abort();
    for (size_t i = 0; i < source_.size(); ++i) source_[i] = static_cast<int32_t>(i);
    GroupedMatmulArgs down = up;
    down.x = up.out;
    down.experts = layer_of(down_ptrs_);
    down.glu = false;
    down.out = {rows_.as<float>(), p_.t * p_.k, p_.d};
    if (!grouped_matmul(context(isa), down, workspace()).ok()) std::abort();
    MoeCombineArgs combine;
    combine.y = down.out;
    combine.inverse = inverse_;
    combine.weights = weights_;
    combine.k = p_.k;
    combine.then = CombineThen::kResidualAdd;
    combine.residual = {out_.as<float>(), p_.t, p_.d};
    if (!moe_combine(context(isa), combine).ok()) std::abort();
  }

  // Weights of the experts with rows, x, y and the residual; `passes` over the hidden rows.
  bench::Work work(int passes) const {
    const auto routes = static_cast<double>(p_.experts);
    const double miss = std::pow(1 - static_cast<double>(p_.k) / routes, static_cast<double>(p_.t));
    const double used =
        p_.rotate ? routes * (1 - miss) : static_cast<double>(std::min(p_.t * p_.k, p_.experts));
    const auto slots = static_cast<double>(p_.t * p_.k);
    bench::Work w;
    w.bytes = used * static_cast<double>(up_bytes_ + down_bytes_);
    w.operations = 2 * slots * static_cast<double>(3 * p_.d * p_.width);
    w.notes = std::to_string(passes) + " passes over [T*K, I], 4 over [T*K, D]";
    return w;
  }

 private:
  static Buffer floats(int64_t n) { return bench::filled(static_cast<size_t>(n) * 4); }
  static ExecContext context(Isa isa) { return bench::machine().context(isa); }
  Workspace workspace() { return {scratch_.data(), scratch_.bytes()}; }
  const PackedMatrix* declare(int64_t i, WeightFormat format, WeightLayout layout, int64_t n,
                              int64_t k, const std::byte* data, size_t bytes) {
    PackedMatrix& m = matrices_[static_cast<size_t>(i)];
    m.format = format;
    m.layout = layout;
    m.n = n;
    m.k = k;
    m.data = data;
    m.bytes = bytes;
    return &m;
  }
  std::span<const PackedMatrix* const> layer_of(const std::vector<const PackedMatrix*>& all) const {
    return std::span(all).subspan(static_cast<size_t>(step_ % copies_ * p_.experts),
                                  static_cast<size_t>(p_.experts));
  }
  // k distinct experts for every token, uniformly.
  void route_at_random() {
    std::vector<int32_t> all(static_cast<size_t>(p_.experts));
    for (size_t e = 0; e < all.size(); ++e) all[e] = static_cast<int32_t>(e);
    for (int64_t t = 0; t < p_.t; ++t)
      for (int64_t k = 0; k < p_.k; ++k) {
        random_ = random_ * 6364136223846793005u + 1442695040888963407u;
        const auto left = static_cast<uint64_t>(p_.experts - k);
        std::swap(all[static_cast<size_t>(k)],
                  all[static_cast<size_t>(k) + static_cast<size_t>((random_ >> 33) % left)]);
        ids_[static_cast<size_t>(t * p_.k + k)] = all[static_cast<size_t>(k)];
      }
  }
  // Every step routes elsewhere, as tokens do: decode finds its weights in memory, not in a cache.
  void route() {
    ++step_;
    if (p_.rotate) return;
    for (size_t i = 0; i < ids_.size(); ++i)
      ids_[i] = static_cast<int32_t>((turn_ + static_cast<int64_t>(i)) % p_.experts);
    turn_ += p_.k;
  }

  Problem p_;
  int64_t turn_ = 0, step_ = 0;
  uint64_t random_ = 1;
  size_t up_bytes_, down_bytes_;
  int64_t copies_;
  Buffer up_, down_, x_, out_, hidden_, rows_, scratch_;
  std::vector<PackedMatrix> matrices_;
  std::vector<const PackedMatrix*> up_ptrs_, down_ptrs_;
  std::vector<int32_t> ids_, starts_, source_, inverse_;
  std::vector<float> weights_;
};

void declare(Isa isa, const Problem& p, WeightFormat format, bool fused) {
  const Arith arith = panel_arith(format, Compute::kBf16);
  const std::string name = std::string("moe_experts_") +
                           (arith == Arith::kInt16 ? "int16_"
                            : quantizes_x(arith)   ? "int8_"
                                                   : "bf16_") +
                           std::string(weight_format_name(format)) + "_" +
                           std::string(isa_name(isa)) + "/" + (fused ? "fused_" : "chain_") +
                           p.name;
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=](benchmark::State& state) {
        Layer layer(p, format);
        bench::run(
            state, layer.work(fused ? 2 : 4), 0,
            [&] { fused ? layer.fused(isa, arith) : layer.chain(isa, arith); },
            [&] { layer.next(); });
      })
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

// Whether the product is the ISA's own and not a smaller one's.
bool has_row(Isa isa, WeightFormat format) {
  return select_panel_kernel(isa, format, panel_arith(format, Compute::kBf16))->isa == isa;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  using enum WeightFormat;
  for (const Isa isa : {Isa::kAmx, Isa::kAvx512Vnni, Isa::kAvx512, Isa::kAvx2})
    for (const WeightFormat format : {kInt4, kInt8, kQ8_0, kQ4_0, kBF16, kMXFP4})
      for (const Problem& p : kProblems)
        for (const bool fused : {true, false})
          if (bench::runnable(isa) && (fused || !p.rotate) && has_row(isa, format))
            declare(isa, p, format, fused);
  return bench::main(argc, argv);
}
