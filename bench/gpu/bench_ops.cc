// bench_ops: the CUDA rows of single ops, replayed from graphs, on the problems and under the names
// of torch_eager.py, so that the two files of results stand side by side.
//
//   bench_ops              needs a CUDA device (exit code 77 without one)
//   bench_ops --emulated   the same calls on the host's CPU, tiny and untimed: a test of this file
// Weights and caches are given in several copies, together larger than the L2. Each line holds the
// median of 25 replays; a result that is zero or not finite is a failure (the ops' tests say more).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "device/cuda/cuda.h"
#include "ops/attention/attention.h"
#include "ops/attention/row.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/panels.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/topk/topk.h"

namespace sluice {
namespace {

constexpr int kSkipped = 77;
constexpr double kCacheBytes = 200e6;  // four times a Hopper's L2

struct Work {
  double flops = 0, bytes = 0;
};
// One call of an op on the `set`-th copy of its inputs.
using Call = std::function<Status(const ExecContext&, int set)>;

class Bench {
 public:
  Bench(std::unique_ptr<Device> device, bool emulated)
      : device_(std::move(device)), host_(make_cpu_device()), emulated_(emulated) {
    stream_ = device_->make_stream().value();
    exec_ = {device_.get(), stream_.get(), nullptr, emulated ? Isa::kCudaHost : Isa::kCuda};
  }
  bool emulated() const { return emulated_; }
  bool good() const { return good_; }
  Device& host() { return *host_; }

  // A value of a shape: as given, or small enough for the emulation.
  int64_t size(int64_t full, int64_t tiny) const { return emulated_ ? tiny : full; }
  int sets(double bytes) const {
    return emulated_ ? 2 : static_cast<int>(std::clamp(1 + kCacheBytes / bytes, 1.0, 16.0));
  }

  // Device memory with a copy of `bytes` bytes; owned by the bench until clear().
  std::byte* place(const void* from, size_t bytes) {
    std::byte* to = room(bytes);
    if (to != nullptr) keep(device_->upload(to, from, bytes, nullptr));
    return to;
  }
  std::byte* room(size_t bytes) {
    Result<Buffer> buffer = device_->allocate(bytes, "bench");
    if (!buffer.ok()) {
      keep(buffer.status());
      return nullptr;
    }
    buffers_.push_back(std::move(buffer).value());
    return buffers_.back().data();
  }
  float* normal(int64_t count, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> draw;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = draw(random);
    return reinterpret_cast<float*>(place(values.data(), values.size() * 4));
  }

  // Times `call` and prints its line; `out` holds `count` floats that the last call wrote.
  void run(const std::string& name, int sets, const Work& work, const float* out, int64_t count,
           const Call& call) {
    std::vector<std::unique_ptr<Graph>> graphs;
    for (int s = 0; s < sets && failure_.ok(); ++s) {
      keep(call(exec_, s));  // warm: attributes are set, code is loaded
      keep(stream_->synchronize());
      if (!emulated_ && failure_.ok()) graphs.push_back(capture(call, s));
    }
    const double us = emulated_ || !failure_.ok() ? 0 : median_us(graphs);
    const bool right = failure_.ok() && looks_right(out, count);
    if (right)
      print(name, work, us);
    else
      std::printf("{\"bench\": \"sluice\", \"case\": \"%s\", \"failed\": \"%s\"}\n", name.c_str(),
                  failure_.ok() ? "the result is zero or not finite" : failure_.message().c_str());
    std::fflush(stdout);
    good_ = good_ && right;
    graphs.clear();
    buffers_.clear();
    failure_ = ok_status();
  }

  // A case that could not be set up.
  void fail(const std::string& name, const Status& status) {
    keep(status);
    run(name, 0, {}, nullptr, 0, nullptr);
  }

 private:
  void keep(const Status& status) {
    if (failure_.ok() && !status.ok()) failure_ = status;
  }
  std::unique_ptr<Graph> capture(const Call& call, int set) {
    keep(stream_->begin_capture());
    if (!failure_.ok()) return nullptr;
    keep(call(exec_, set));
    Result<std::unique_ptr<Graph>> graph = stream_->end_capture();
    keep(graph.status());
    return graph.ok() ? std::move(graph).value() : nullptr;
  }
  double median_us(const std::vector<std::unique_ptr<Graph>>& graphs) {
    std::vector<double> us;
    const auto begin = device_->make_event(), end = device_->make_event();
    keep(begin.status()), keep(end.status());
    for (int i = -3; i < 25 && failure_.ok(); ++i) {
      keep((*begin)->record(*stream_));
      keep(graphs[static_cast<size_t>(i + 3) % graphs.size()]->launch(*stream_));
      keep((*end)->record(*stream_));
      keep((*end)->wait());
      const Result<double> ms = (*end)->milliseconds_since(**begin);
      keep(ms.status());
      if (i >= 0 && ms.ok()) us.push_back(1e3 * *ms);
    }
    keep(stream_->synchronize());
    if (us.empty()) return 0;
    std::sort(us.begin(), us.end());
    return us[us.size() / 2];
  }
  bool looks_right(const float* out, int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    keep(device_->download(values.data(), reinterpret_cast<const std::byte*>(out),
                           values.size() * 4, nullptr));
    const bool finite =
        std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
    return failure_.ok() && finite &&
           std::any_of(values.begin(), values.end(), [](float v) { return v != 0; });
  }
  void print(const std::string& name, const Work& work, double us) const {
    std::printf("{\"bench\": \"sluice\", \"case\": \"%s\"", name.c_str());
    if (emulated_) {
      std::printf(", \"mode\": \"emulated\"}\n");
      return;
    }
    std::printf(", \"mode\": \"graph\", \"us\": %.3f", us);
    if (work.flops > 0) std::printf(", \"tflops\": %.2f", work.flops / us * 1e-6);
    if (work.bytes > 0) std::printf(", \"gb_per_s\": %.1f", work.bytes / us * 1e-3);
    std::printf("}\n");
  }

  std::unique_ptr<Device> device_, host_;
  bool emulated_;
  std::unique_ptr<Stream> stream_;
  ExecContext exec_;
  std::vector<Buffer> buffers_;
  Status failure_;
  bool good_ = true;
};

void bench_linear(Bench& bench, const std::string& name, WeightFormat format, int64_t m, int64_t d,
                  int64_t n) {
  std::mt19937 random(1);
  std::vector<uint16_t> stored(static_cast<size_t>(n * d));
  for (uint16_t& w : stored)
    w = static_cast<uint16_t>((random() & 0x8000u) | 0x3d00u | (random() & 0x1ffu));
  const auto packed = pack_matrix(bench.host(),
                                  {.dtype = DType::kBF16,
                                   .data = reinterpret_cast<const std::byte*>(stored.data()),
                                   .n = n,
                                   .k = d,
                                   .stride_n = d},
                                  format, {.rounding = IntRounding::kNearest});
  if (!packed.ok()) return bench.fail(name, packed.status());
  const auto bytes = static_cast<double>(packed->bytes);
  std::vector<PackedMatrix> weights(static_cast<size_t>(bench.sets(bytes)), *packed);
  for (PackedMatrix& w : weights) {
    w.data = bench.place(packed->data, packed->bytes);
    w.storage = StorageKind::kDevice;
  }
  MatmulArgs args;
  args.arith = panel_arith(format, Compute::kBf16);
  args.x = {bench.normal(m * d, 2), m, d};
  auto* out = reinterpret_cast<float*>(bench.room(static_cast<size_t>(m * n) * 4));
  args.out = {out, m, n};
  const size_t scratch = matmul_workspace_bytes(m, d);
  const Workspace workspace{bench.room(scratch), scratch};
  const Work work{2.0 * static_cast<double>(m * n * d),
                  bytes + 4.0 * static_cast<double>(m * (n + d))};
  bench.run(name, static_cast<int>(weights.size()), work, out, m * n,
            [&](const ExecContext& exec, int set) {
              args.w = &weights[static_cast<size_t>(set)];
              return matmul(exec, args, workspace);
            });
}

void bench_rms_norm(Bench& bench, const std::string& name, int64_t rows, int64_t d) {
  RmsNormArgs args;
  args.x = {bench.normal(rows * d, 3), rows, d};
  args.weight = bench.normal(d, 4);
  auto* out = reinterpret_cast<float*>(bench.room(static_cast<size_t>(rows * d) * 4));
  args.out = {out, rows, d};
  bench.run(name, 1, {0, 8.0 * static_cast<double>(rows * d)}, out, rows * d,
            [&](const ExecContext& exec, int) { return rms_norm(exec, args); });
}

void bench_topk(Bench& bench, const std::string& name, int64_t rows) {
  const int64_t n = bench.size(262144, 4096), k = 75;
  TopkArgs args;
  args.x = {bench.normal(rows * n, 5), rows, n};
  args.k = k;
  const auto count = static_cast<size_t>(rows * k);
  args.ids = {reinterpret_cast<int32_t*>(bench.room(count * 4)), count};
  args.values = {reinterpret_cast<float*>(bench.room(count * 4)), count};
  bench.run(name, 1, {0, 4.0 * static_cast<double>(rows * n)}, args.values.data(), rows * k,
            [&](const ExecContext& exec, int) { return topk(exec, args); });
}

// `batch` sequences of `context` keys in the cache, one query each (decode), or one sequence whose
// every position asks (prefill).
struct Heads {
  int64_t heads, groups, size;
};
void bench_attention(Bench& bench, const std::string& name, int64_t batch, int64_t context,
                     bool prefill, const Heads& h) {
  const int64_t rows = prefill ? context : batch, blocks = ceil_div(context, kKvBlock);
  const int64_t width = h.heads * h.size;
  const double cache_bytes =
      4.0 * static_cast<double>(batch * blocks * kKvBlock * h.groups * h.size);
  std::vector<KvCacheView> caches(static_cast<size_t>(bench.sets(cache_bytes)));
  std::vector<uint16_t> half(static_cast<size_t>(cache_bytes / 2));
  std::mt19937 random(6);
  for (uint16_t& v : half)
    v = static_cast<uint16_t>((random() & 0x8000u) | 0x3e00u | (random() & 0xffu));
  for (KvCacheView& c : caches) {
    c.dtype = DType::kBF16;
    c.blocks = batch * blocks;
    c.kv_heads = h.groups;
    c.head_size = h.size;
    c.data = bench.place(half.data(), half.size() * 2);
  }
  std::vector<int32_t> starts, positions, tables(static_cast<size_t>(batch * blocks));
  for (int64_t s = 0; s <= batch; ++s)
    starts.push_back(static_cast<int32_t>(prefill ? s * context : s));
  for (int64_t t = 0; t < rows; ++t)
    positions.push_back(static_cast<int32_t>(prefill ? t : context - 1));
  for (size_t i = 0; i < tables.size(); ++i) tables[i] = static_cast<int32_t>(i);
  const auto ints = [&](const std::vector<int32_t>& v) {
    return std::span<const int32_t>(
        reinterpret_cast<const int32_t*>(bench.place(v.data(), v.size() * 4)), v.size());
  };
  AttentionArgs args;
  args.q = {bench.normal(rows * width, 7), rows, width};
  args.heads = h.heads;
  args.scale = 1.0f / std::sqrt(static_cast<float>(h.size));
  args.query_starts = ints(starts);
  args.positions = ints(positions);
  args.block_tables = {ints(tables).data(), batch, blocks};
  auto* out = reinterpret_cast<float*>(bench.room(static_cast<size_t>(rows * width) * 4));
  args.out = {out, rows, width};
  const size_t scratch = attention_split_workspace_bytes(
      rows, h.heads, h.size, prefill ? 1 : ceil_div(context, kAttentionSplit));
  const Workspace workspace{bench.room(scratch), scratch};
  const double pairs = static_cast<double>(context) * static_cast<double>(context) / 2;
  const Work work =
      prefill ? Work{4.0 * pairs * static_cast<double>(width), 0} : Work{0, cache_bytes};
  bench.run(name, static_cast<int>(caches.size()), work, out, rows * width,
            [&](const ExecContext& exec, int set) {
              args.cache = caches[static_cast<size_t>(set)];
              return attention(exec, args, workspace);
            });
}

void run_all(Bench& bench) {
  struct Width {
    const char* name;
    int64_t d;
  };
  // torch has no peer for the integer formats: their rows stand beside bf16's of the same shape.
  for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kInt4, WeightFormat::kInt8})
    for (const Width& w : {Width{"qwen3", 2048}, Width{"gemma4", 2816}, Width{"gptoss", 2880}})
      for (const int64_t m : {1, 8, 64, 512}) {
        std::string name = std::string("linear_") + w.name + "_m" + std::to_string(m);
        if (is_int_format(format)) (name += '_') += weight_format_name(format);
        bench_linear(bench, name, format, bench.size(m, std::min<int64_t>(m, 9)),
                     bench.size(w.d, 96), bench.size(4096, 48));
      }
  for (const int64_t rows : {1, 512})
    bench_rms_norm(bench, "rms_norm_" + std::to_string(rows) + "x2816", bench.size(rows, 3),
                   bench.size(2816, 96));
  for (const int64_t rows : {1, 64})
    bench_topk(bench, "topk75_" + std::to_string(rows) + "x262144", bench.size(rows, 2));
  for (const Heads& h :
       {Heads{32, 4, 128}, Heads{16, 8, 256}, Heads{16, 2, 512}, Heads{64, 8, 64}}) {
    const std::string size = "_hd" + std::to_string(h.size);
    for (const int64_t batch : {1, 16})
      bench_attention(bench, "sdpa_decode_b" + std::to_string(batch) + "_8192" + size,
                      bench.size(batch, 2), bench.size(8192, 40), false, h);
    bench_attention(bench, "sdpa_prefill_4096" + size, 1, bench.size(4096, 24), true, h);
  }
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  const bool emulated = argc > 1 && std::strcmp(argv[1], "--emulated") == 0;
  std::unique_ptr<Device> device;
  if (emulated) {
    device = make_emulated_cuda_device();
  } else {
    Result<std::unique_ptr<Device>> made = make_cuda_device(0);
    if (!made.ok()) {
      std::printf("bench_ops: skipped: %s\n", made.status().message().c_str());
      return kSkipped;
    }
    device = std::move(made).value();
  }
  Bench bench(std::move(device), emulated);
  run_all(bench);
  return bench.good() ? 0 : 1;
}
