#include "device/cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "device/device.h"

namespace sluice {
namespace {

constexpr int64_t kBufferFloats = int64_t{64} << 20;  // 256 MiB: beyond any last-level cache here
constexpr int64_t kPieceFloats = int64_t{1} << 20;
constexpr int64_t kRounds = 2'000'000;
constexpr int64_t kProductRounds = 200'000;
constexpr int kRuns = 4;

float sum_reference(const float* data, int64_t count) {
  float sum[8] = {};
  for (int64_t i = 0; i < count; i += 8)
    for (int j = 0; j < 8; ++j) sum[j] += data[i + j];
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

// Multiply, then add: what a machine without these instructions is good for.
float fma_reference(int64_t rounds) {
  float x[64];
  for (int j = 0; j < 64; ++j) x[j] = 1.0f + 0.001f * static_cast<float>(j);
  for (int64_t r = 0; r < rounds; ++r)
    for (float& v : x) v = v * 0.9999f + 0.0001f;
  float total = 0;
  for (const float v : x) total += v;
  return total;
}

const ProbeKernel& kernel_of(Isa isa) {
#ifdef SLUICE_X86
  if (isa >= Isa::kAmx) return probe_amx;
  if (isa >= Isa::kAvx512Vnni) return probe_avx512vnni;
  if (isa >= Isa::kAvx512) return probe_avx512;
  if (isa >= Isa::kAvx2) return probe_avx2;
#endif
  return probe_reference;
}

template <class Body>
double best_seconds(const Body& body) {
  double best = 1e30;
  for (int i = 0; i < kRuns; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return std::max(best, 1e-9);
}

// GOP/s of all workers, or what f32 gives where the ISA has no such products.
double product_rate(const ExecContext& context, const ProbeRate& rate, double f32) {
  if (rate.run == nullptr) return f32;
  const int workers = context.pool->size();
  std::atomic<float> sink{0};
  const double seconds = best_seconds([&] {
    context.pool->parallel_for(workers, 1,
                               [&](int64_t, int) { sink.store(rate.run(kProductRounds)); });
  });
  return static_cast<double>(workers) * kProductRounds * rate.operations / seconds / 1e9;
}

}  // namespace

const ProbeKernel probe_reference = {sum_reference, fma_reference, 4};

CpuProbe probe_cpu(const ExecContext& context) {
  CpuProbe probe;
  const ProbeKernel& kernel = kernel_of(context.isa);
  // Results go here, so that no compiler may leave the work out.
  std::atomic<float> sink{0};
  Result<Buffer> buffer = context.device->allocate(kBufferFloats * sizeof(float), "probe");
  if (!buffer.ok()) return probe;
  float* data = buffer->as<float>();
  const auto over_pieces = [&](const auto& body) {
    context.pool->parallel_for(kBufferFloats / kPieceFloats, 1,
                               [&](int64_t piece, int) { body(data + piece * kPieceFloats); });
  };
  over_pieces([](float* piece) { std::fill_n(piece, kPieceFloats, 1.0f); });
  const double read = best_seconds(
      [&] { over_pieces([&](float* piece) { sink.store(kernel.sum(piece, kPieceFloats)); }); });
  const int workers = context.pool->size();
  const double fma = best_seconds([&] {
    context.pool->parallel_for(workers, 1, [&](int64_t, int) { sink.store(kernel.fma(kRounds)); });
  });
  probe.read_gb_per_second = static_cast<double>(kBufferFloats) * sizeof(float) / read / 1e9;
  probe.fma_gflops = static_cast<double>(workers) * kRounds * kernel.chains * 16 * 2 / fma / 1e9;
  probe.bf16_gflops = product_rate(context, kernel.bf16, probe.fma_gflops);
  probe.int8_gops = product_rate(context, kernel.int8, probe.fma_gflops);
  probe.ok = true;
  return probe;
}

double probe_read_rate(const ExecContext& context, const float* data, int64_t floats, int runs) {
  const ProbeKernel& kernel = kernel_of(context.isa);
  std::atomic<float> sink{0};
  std::vector<double> seconds;
  for (int run = 0; run < runs; ++run) {
    const auto start = std::chrono::steady_clock::now();
    context.pool->parallel_for(floats / kPieceFloats, 1, [&](int64_t piece, int) {
      sink.store(kernel.sum(data + piece * kPieceFloats, kPieceFloats));
    });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    seconds.push_back(took.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return static_cast<double>(floats) * sizeof(float) / seconds[seconds.size() / 2] / 1e9;
}

}  // namespace sluice
