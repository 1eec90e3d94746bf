// attention: every row, decode at a long context and prefill, in the shapes of the three families.
#include "ops/attention/attention.h"

#include <map>
#include <numeric>
#include <vector>

#include "ops/attention/kernels.h"
#include "ops/bench_data.h"

namespace sluice {
namespace {

struct Problem {
  const char* name;
  int64_t sequences, tokens, context;  // rows of each sequence after `context` cached tokens
  int64_t heads, kv_heads, head_size, window;
};
constexpr Problem kProblems[] = {
    {"qwen3_decode", 1, 1, 4095, 32, 4, 128, 0},
    {"qwen3_decode_x8", 8, 1, 4095, 32, 4, 128, 0},
    {"qwen3_decode_short", 1, 1, 255, 32, 4, 128, 0},
    {"qwen3_prefill_512", 1, 512, 0, 32, 4, 128, 0},
    {"qwen3_prefill_512_at_4096", 1, 512, 4096, 32, 4, 128, 0},
    {"gpt_oss_decode", 1, 1, 4095, 64, 8, 64, 0},
    {"gpt_oss_sliding_prefill_512", 1, 512, 0, 64, 8, 64, 128},
    {"gemma4_full_decode", 1, 1, 4095, 16, 2, 512, 0},
    {"gemma4_sliding_prefill_512", 1, 512, 1024, 16, 8, 256, 1024},
    {"gemma4_full_prefill_512", 1, 512, 0, 16, 2, 512, 0},
};

class Operands {
 public:
  Operands(const Problem& p, DType dtype)
      : p_(p),
        q_(bench::filled(static_cast<size_t>(p.sequences * p.tokens * width()) * 4)),
        out_(bench::filled(q_.bytes())) {
    const int64_t blocks = ceil_div(p.context + p.tokens, kKvBlock);
    args_.cache = {dtype, nullptr, p.sequences * blocks, p.kv_heads, p.head_size};
    pool_ = bench::filled(static_cast<size_t>(args_.cache.blocks * args_.cache.block_elements()) *
                          (dtype == DType::kF32 ? 4 : 2));
    args_.cache.data = pool_.data();
    table_.resize(static_cast<size_t>(args_.cache.blocks));
    std::iota(table_.begin(), table_.end(), 0);
    starts_.push_back(0);
    for (int64_t s = 0; s < p.sequences; ++s) {
      for (int64_t t = 0; t < p.tokens; ++t) {
        const int64_t at = p.context + t;
        positions_.push_back(static_cast<int32_t>(at));
        keys_ += p.window > 0 ? std::min(at + 1, p.window) : at + 1;
      }
      starts_.push_back(static_cast<int32_t>(positions_.size()));
    }
    const int64_t rows = p.sequences * p.tokens;
    args_.q = {q_.as<float>(), rows, width()};
    args_.out = {out_.as<float>(), rows, width()};
    args_.heads = p.heads;
    args_.scale = 0.01f;
    args_.window = p.window;
    args_.query_starts = starts_;
    args_.positions = positions_;
    args_.block_tables = {table_.data(), p.sequences, blocks};
    scratch_ = bench::filled(attention_workspace_bytes(bench::threads(), p.heads, p.head_size));
  }
  void run(Isa isa) {
    const Status status =
        attention(bench::machine().context(isa), args_, {scratch_.data(), scratch_.bytes()});
    if (!status.ok()) std::abort();
  }
  double operations() const {
    return 4.0 * static_cast<double>(keys_) * static_cast<double>(width());
  }
  // Queries, results, and every cached key and value that some row sees, once.
  double bytes() const {
    const int64_t seen = p_.window > 0 ? std::min(p_.context + p_.tokens, p_.window + p_.tokens)
                                       : p_.context + p_.tokens;
    const double kv = static_cast<double>(2 * p_.sequences * seen * p_.kv_heads * p_.head_size);
    return kv * (args_.cache.dtype == DType::kF32 ? 4 : 2) + static_cast<double>(2 * q_.bytes());
  }

 private:
  int64_t width() const { return p_.heads * p_.head_size; }
  Problem p_;
  Buffer q_, out_, pool_, scratch_;
  std::vector<int32_t> table_, starts_, positions_;
  int64_t keys_ = 0;
  AttentionArgs args_;
};

// Seconds of the reference: measured on one row of 256 keys, scaled by operations.
double reference_seconds(DType dtype, double operations) {
  static std::map<DType, double> measured;
  double& each = measured[dtype];
  if (each == 0) {
    Operands small({"", 1, 1, 255, 4, 1, 128, 0}, dtype);
    small.run(Isa::kReference);
    each = bench::seconds_of([&] { small.run(Isa::kReference); }) / small.operations();
  }
  return each * operations;
}

void declare(const Kernel<AttentionKernel>& row, const Problem& p) {
  bench::declare(row.name, p.name, [row, p](benchmark::State& state) {
    const DType dtype = row.in == "f32" ? DType::kF32 : DType::kBF16;
    Operands in(p, dtype);
    bench::Work work;
    work.bytes = in.bytes();
    work.operations = in.operations();
    work.notes = "keys and values of a split once per block of rows";
    bench::run(state, work, reference_seconds(dtype, work.operations), [&] { in.run(row.isa); });
  });
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  for (const auto& row : attention_kernels()) {
    if (!bench::runnable(row.isa)) continue;
    for (const Problem& p : kProblems)
      // The reference takes seconds on the large shapes; one small one shows what it is.
      if (row.isa != Isa::kReference || p.tokens * p.context == 255) declare(row, p);
  }
  return bench::main(argc, argv);
}
