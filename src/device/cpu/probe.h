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
};
// The best of a few runs of the kernels of context.isa on all workers of its pool.
CpuProbe probe_cpu(const ExecContext& context);

// One ISA's loops; each returns a number that depends on everything it did.
struct ProbeKernel {
  float (*sum)(const float* data, int64_t count);  // count: a multiple of 128
  float (*fma)(int64_t rounds);                    // rounds x chains x 16 lanes
  int chains;
};
extern const ProbeKernel probe_reference;
#ifdef SLUICE_X86
extern const ProbeKernel probe_avx2, probe_avx512;
#endif

}  // namespace sluice
