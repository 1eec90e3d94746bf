// Which instruction sets this process may use. Decided from CPUID feature bits (never from CPU
// models) and the operating system's saved state, once, when a Runtime is made.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace sluice {

// CPU paths are ordered: a machine that has one has all smaller ones.
//   kReference    plain C++, the definition
//   kAmxEmulated  the AMX kernels over tiles emulated in plain C++ (simd/amx.h): every machine has
//                 them, no machine chooses them by itself
//   kAvx2         with FMA, F16C and BMI2
//   kAvx512       F, BW, DQ and VL
//   kAvx512Vnni   and VNNI: without it (Skylake-X) selection falls to the rows of kAvx512
//   kAvx512Bf16   and AVX512_BF16
//   kAmx          and VBMI, AMX-TILE, AMX-INT8 and AMX-BF16, which the operating
//                 system must allow this process to use
// kCuda is a device's path, and kCudaHost the very bodies of its kernels run as loops on the CPU
// (device/block.h): each serves only a context that asks for it.
enum class Isa {
  kReference = 0,
  kAmxEmulated = 1,
  kAvx2 = 2,
  kAvx512 = 3,
  kAvx512Vnni = 4,
  kAvx512Bf16 = 5,
  kAmx = 6,
  kCudaHost = 16,
  kCuda = 17,
};
constexpr bool is_cuda(Isa isa) {
  return isa == Isa::kCudaHost || isa == Isa::kCuda;
}

std::string_view isa_name(Isa isa);
std::optional<Isa> isa_from_name(std::string_view name);

// The best ISA that this CPU, operating system and build offer. The first call asks Linux for the
// tiles' state on behalf of the whole process (threads started before included); where it refuses,
// kAmx is not offered.
Isa detect_isa();
// Of CPU paths: true of kAmxEmulated everywhere, and of whatever does not exceed detect_isa().
bool isa_runs(Isa isa);
// All that run, ascending.
std::vector<Isa> isa_paths();
// detect_isa(), or what the environment variable SLUICE_ISA forces. Forcing a path that the machine
// or the build lacks is an error: a test must never believe it ran what it did not.
Result<Isa> choose_isa();
// Feature bits by their usual names ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8" ...).
std::vector<std::string> cpu_features();
// The CPU's brand string, trimmed.
std::string cpu_name();

}  // namespace sluice
