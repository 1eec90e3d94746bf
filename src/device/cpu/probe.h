// Probes: what this machine's memory and arithmetic can really do, measured in about a second.
//
// `sluice doctor` prints them; they are the roofs that benchmarks are compared with. Include
// nothing heavy here: the ISA's translation units read it.
#pragma once

#include <cstdint>

namespace sluice {

struct ExecContext;

struct CpuProbe {
  double read_gb_per_second = 0;  // every worker reads its part of a buffer beyond the caches
  double fma_gflops = 0;          // f32 multiply-adds (2 operations each) on registers
  bool ok = false;                // false: no memory for the buffer
  // Products of bf16 and of 8-bit integers by the ISA's own instructions, on registers: tiles, else
  // VNNI, else the rate of f32 multiply-adds.
  double bf16_gflops = 0, int8_gops = 0;
};
// The best of a few runs of the kernels of context.isa on all workers of its pool.
CpuProbe probe_cpu(const ExecContext& context);
// GB/s at which all workers together read `floats` (a multiple of 2^20) floats, the median of
// `runs` passes: of a benchmark's own memory, where a probe's buffer would stay in a large cache.
double probe_read_rate(const ExecContext& context, const float* data, int64_t floats, int runs);

// A loop of products, and the operations (a multiply-add is two) of one round.
struct ProbeRate {
  float (*run)(int64_t rounds) = nullptr;  // null: the ISA has no such instruction
  double operations = 0;
};
// One ISA's loops; all return a number that depends on everything they did.
struct ProbeKernel {
  float (*sum)(const float* data, int64_t count);  // count: a multiple of 128
  float (*fma)(int64_t rounds);                    // rounds x chains x 16 lanes
  int chains;
  ProbeRate bf16 = {}, int8 = {};
};
extern const ProbeKernel probe_reference;
#ifdef SLUICE_X86
extern const ProbeKernel probe_avx2, probe_avx512, probe_avx512vnni, probe_amx;
#endif

}  // namespace sluice
