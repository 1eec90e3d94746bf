#include "simd/isa.h"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sluice {
namespace {

constexpr std::array<std::string_view, 7> kNames = {"reference",  "amx_emulated", "avx2", "avx512",
                                                    "avx512vnni", "avx512bf16",   "amx"};

#if defined(__x86_64__)
struct Leaf {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};
Leaf cpuid(uint32_t leaf, uint32_t sub) {
  Leaf r;
  if (__get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}
bool bit(uint32_t word, int n) {
  return ((word >> n) & 1u) != 0;
}

[[maybe_unused]] uint64_t saved_state() {
  if (!bit(cpuid(1, 0).c, 27)) return 0;  // OSXSAVE
  uint32_t lo = 0, hi = 0;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t{hi} << 32) | lo;
}

// Linux keeps the 8 KiB of tile state from a process until it asks (ARCH_REQ_XCOMP_PERM for
// component 18): the first tile instruction of a process without it dies with SIGILL.
[[maybe_unused]] bool tiles_permitted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

Isa find_isa() {
#if defined(__x86_64__) && defined(SLUICE_X86)
  const Leaf one = cpuid(1, 0), seven = cpuid(7, 0), seven1 = cpuid(7, 1);
  const uint64_t state = saved_state();
  const auto saves = [&](uint64_t mask) { return (state & mask) == mask; };
  const bool avx2 =
      saves(0x6) && bit(one.c, 12) && bit(one.c, 29) && bit(seven.b, 5) && bit(seven.b, 8);
  const bool avx512 = avx2 && saves(0xe6) && bit(seven.b, 16) && bit(seven.b, 17) &&
                      bit(seven.b, 30) && bit(seven.b, 31);
  const bool vnni = avx512 && bit(seven.c, 11);
  const bool bf16 = vnni && bit(seven1.a, 5);
  const bool amx = bf16 && saves(0x60000) && bit(seven.c, 1) && bit(seven.d, 22) &&
                   bit(seven.d, 24) && bit(seven.d, 25);
  if (amx && tiles_permitted()) return Isa::kAmx;
  if (bf16) return Isa::kAvx512Bf16;
  if (vnni) return Isa::kAvx512Vnni;
  if (avx512) return Isa::kAvx512;
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kReference;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  if (is_cuda(isa)) return isa == Isa::kCuda ? "cuda" : "cuda_host";
  return kNames[static_cast<size_t>(isa)];
}

std::optional<Isa> isa_from_name(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<Isa>(i);
  return std::nullopt;
}

Isa detect_isa() {
  static const Isa isa = find_isa();  // a fact of the machine; CPUID is slow under a hypervisor
  return isa;
}

bool isa_runs(Isa isa) {
  return isa == Isa::kAmxEmulated || (!is_cuda(isa) && isa <= detect_isa());
}

std::vector<Isa> isa_paths() {
  std::vector<Isa> paths;
  for (size_t i = 0; i < kNames.size(); ++i)
    if (isa_runs(static_cast<Isa>(i))) paths.push_back(static_cast<Isa>(i));
  return paths;
}

Result<Isa> choose_isa() {
  const Isa best = detect_isa();
  const char* forced = std::getenv("SLUICE_ISA");
  if (forced == nullptr || *forced == '\0') return best;
  const std::optional<Isa> isa = isa_from_name(forced);
  if (!isa)
    return invalid_argument(
        "SLUICE_ISA: expected reference, amx_emulated, avx2, avx512, avx512vnni, avx512bf16 or "
        "amx, "
        "got \"{}\"",
        forced);
  if (!isa_runs(*isa))
    return unimplemented("SLUICE_ISA={}: this machine and build offer paths up to {}", forced,
                         isa_name(best));
  return *isa;
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> out;
#if defined(__x86_64__)
  const Leaf one = cpuid(1, 0), seven = cpuid(7, 0), seven1 = cpuid(7, 1);
  const auto add = [&](bool has, const char* name) {
    if (has) out.emplace_back(name);
  };
  add(bit(one.c, 29), "f16c");
  add(bit(one.c, 12), "fma");
  add(bit(seven.b, 5), "avx2");
  add(bit(seven1.a, 4), "avx_vnni");
  add(bit(seven.b, 16), "avx512f");
  add(bit(seven.b, 30), "avx512bw");
  add(bit(seven.c, 1), "avx512_vbmi");
  add(bit(seven.c, 11), "avx512_vnni");
  add(bit(seven1.a, 5), "avx512_bf16");
  add(bit(seven.d, 23), "avx512_fp16");
  add(bit(seven.d, 22), "amx_bf16");
  add(bit(seven.d, 24), "amx_tile");
  add(bit(seven.d, 25), "amx_int8");
#endif
  return out;
}

std::string cpu_name() {
#if defined(__x86_64__)
  char text[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const Leaf l = cpuid(0x80000002u + i, 0);
    std::memcpy(text + 16 * i, &l, 16);
  }
  std::string name(text);
  while (!name.empty() && name.back() == ' ') name.pop_back();
  return name.substr(
      name.find_first_not_of(' ') == std::string::npos ? name.size() : name.find_first_not_of(' '));
#else
  return "unknown";
#endif
}

}  // namespace sluice
