// What the ops' benches share: contexts, the roofs of this machine, and one form of result.
//
// Each row reports GB/s (bytes that must move) and GOP/s (operations that must happen), its share
// of the tighter roof, and how many times faster it is than the reference row on the same problem.
// SLUICE_BENCH_THREADS sets the workers (default: every core). With one worker the clock is its CPU
// time, which a machine that is busy otherwise disturbs little; with more it is the wall's.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/topology.h"
#include "device/cpu/probe.h"
#include "device/device.h"
#include "ops/kernel_table.h"

namespace sluice::bench {

inline int threads() {
  const char* text = std::getenv("SLUICE_BENCH_THREADS");
  const int n = text != nullptr ? std::atoi(text) : 0;
  return n > 0 ? n : available_cores();
}

inline double now() {
  timespec t{};
  clock_gettime(threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
inline double seconds_of(const std::function<void()>& body) {
  const double start = now();
  body();
  return now() - start;
}

// The roofs of one worker, by the same loops as probe_cpu but on this clock.
inline CpuProbe probe_one(Device& device, Isa isa) {
  const ProbeKernel* kernel = &probe_reference;
#ifdef SLUICE_X86
  // f32 and memory: the wider ISAs have nothing better for these.
  if (isa >= Isa::kAvx2) kernel = isa >= Isa::kAvx512 ? &probe_avx512 : &probe_avx2;
#endif
  constexpr int64_t kFloats = int64_t{64} << 20, kRounds = 2'000'000;
  const Buffer buffer = device.allocate(kFloats * 4, "probe").value();
  std::memset(buffer.data(), 0x3f, buffer.bytes());
  double read = 1e9, fma = 1e9;
  for (int i = 0; i < 3; ++i) {
    read = std::min(read, seconds_of([&] {
                      benchmark::DoNotOptimize(kernel->sum(buffer.as<float>(), kFloats));
                    }));
    fma = std::min(fma, seconds_of([&] { benchmark::DoNotOptimize(kernel->fma(kRounds)); }));
  }
  return {kFloats * 4 / read / 1e9, kRounds * kernel->chains * 32 / fma / 1e9, true};
}

// One machine per program: the device, a pool of threads() workers and the measured roofs.
struct Machine {
  Machine() : device(make_cpu_device()), pool(threads()) {
    roof = threads() == 1 ? probe_one(*device, detect_isa()) : probe_cpu(context(detect_isa()));
  }
  ExecContext context(Isa isa) { return {device.get(), nullptr, &pool, isa}; }
  std::unique_ptr<Device> device;
  ThreadPool pool;
  CpuProbe roof;
};
inline Machine& machine() {
  static Machine m;
  return m;
}

// A buffer whose bytes are harmless as f32, bf16, f16 and MXFP4 alike: about 0.75, scales 2^-64.
inline Buffer filled(size_t bytes) {
  Buffer b = machine().device->allocate(bytes, "bench").value();
  std::memset(b.data(), 0x3f, bytes);
  return b;
}

struct Work {
  double bytes = 0;       // that must move, each once
  double operations = 0;  // a multiply-add is two
  std::string notes;      // for the label: passes over each tensor
};

// Times body, calling `before` outside of the time, and sets the counters from the median.
// reference_seconds: of the reference row on this problem, 0 when it was not measured.
inline void run(
    benchmark::State& state, const Work& work, double reference_seconds,
    const std::function<void()>& body, const std::function<void()>& before = [] {}) {
  before();
  body();  // pages touched, caches in their steady state
  std::vector<double> seconds;
  for (auto _ : state) {
    before();
    seconds.push_back(seconds_of(body));
    state.SetIterationTime(seconds.back());
  }
  std::sort(seconds.begin(), seconds.end());
  const double each = seconds[seconds.size() / 2];
  state.counters["median_us"] = each * 1e6;
  state.counters["best_us"] = seconds.front() * 1e6;
  const CpuProbe& roof = machine().roof;
  const double memory = work.bytes / (roof.read_gb_per_second * 1e9);
  const double arithmetic = work.operations / (roof.fma_gflops * 1e9);
  state.counters["GB/s"] = work.bytes / each / 1e9;
  if (work.operations > 0) state.counters["GOP/s"] = work.operations / each / 1e9;
  state.counters["roof%"] = 100 * std::max(memory, arithmetic) / each;
  if (reference_seconds > 0) state.counters["x_ref"] = reference_seconds / each;
  if (!work.notes.empty()) state.SetLabel(work.notes);
}

inline bool runnable(Isa isa) {
  return isa_runs(isa);
}

// Registers the measurement of a row on a problem as row/problem.
inline void declare(std::string_view row, const std::string& problem,
                    std::function<void(benchmark::State&)> body) {
  benchmark::RegisterBenchmark((std::string(row) + "/" + problem).c_str(), std::move(body))
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

// Times body on a row's ISA after measuring it, once and warm, on the reference's.
inline void run_beside_reference(benchmark::State& state, const Work& work, Isa isa,
                                 const std::function<void(Isa)>& body) {
  body(Isa::kReference);
  const double reference = seconds_of([&] { body(Isa::kReference); });
  run(state, work, reference, [&] { body(isa); });
}

// Measures what was declared; prints the machine's roofs before the rows.
inline int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const CpuProbe& roof = machine().roof;
  benchmark::AddCustomContext("workers", std::to_string(machine().pool.size()));
  benchmark::AddCustomContext("read_GB/s", std::to_string(roof.read_gb_per_second));
  benchmark::AddCustomContext("fma_GFLOP/s", std::to_string(roof.fma_gflops));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

// The main() of a bench that declares every runnable row for every problem.
template <class Rows, class Problems, class Declare>
int main(int argc, char** argv, const Rows& rows, const Problems& problems, Declare declare_row) {
  for (const auto& row : rows)
    for (const auto& problem : problems)
      if (runnable(row.isa)) declare_row(row, problem);
  return main(argc, argv);
}

}  // namespace sluice::bench
