// Rows of kernels.inc as data, and the rule that picks one.
//
// Each op folder's kernels.inc lists its kernels, best first:
//   SLUICE_KERNEL(isa, name, in, weight, arith, flags)
//     isa     kReference | kAmxEmulated | kAvx2 | kAvx512 | kAvx512Vnni | kAvx512Bf16 | kAmx: what
//             the machine must have (simd/isa.h). VNNI is a step of its own: its rows stand in
//             *_avx512vnni.cc, before a row of kAvx512 that serves machines without it; so is BF16.
//             kAmxEmulated rows stand behind those of real ISAs and before the reference: they run
//             where SLUICE_ISA or a test asks for them
//             kCuda: launches on the context's stream, given device pointers
//             kCudaHost: the same body on the CPU, given host pointers (tests, no GPU needed)
//     name    the function, also its name in tests, benches and profiles
//     in      dtype of the main input or cache: f32 | bf16 | int8 | int16 | fp8 | any
//     weight  f32 | bf16 | mxfp4 | none
//     arith   the written order of operations that it follows; all rows of one arith agree bit
//             for bit
//     flags   free words for the catalogue
// The same list declares, selects, tests, benches and documents the kernels.
#pragma once

#include <span>
#include <string_view>

#include "simd/isa.h"

namespace sluice {

template <class Fn>
struct Kernel {
  Isa isa;
  std::string_view name, in, weight, arith, flags;
  Fn* run;
};

// The first row that the ISA allows and whose keys match ("any" in a row matches everything), or
// null.
template <class Fn>
const Kernel<Fn>* select_kernel(std::span<const Kernel<Fn>> rows, Isa isa, std::string_view in,
                                std::string_view weight, std::string_view arith) {
  for (const Kernel<Fn>& r : rows) {
    if (is_cuda(isa) || is_cuda(r.isa) ? r.isa != isa : r.isa > isa) continue;
    if (r.in != "any" && r.in != in) continue;
    if (r.weight != "any" && r.weight != weight) continue;
    if (r.arith != "any" && r.arith != arith) continue;
    return &r;
  }
  return nullptr;
}

// What an op answers when no row serves its context.
inline Status no_kernel(std::string_view op, Isa isa) {
  return unimplemented("{}: no {} kernel in this build", op, isa_name(isa));
}

}  // namespace sluice
