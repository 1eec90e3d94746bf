#include "device/cpu/probe.h"
#include "device/cpu/probe_kernels.h"
#include "simd/amx_vector.h"

namespace sluice {
namespace {

// Four sums: while one product finishes, three others are under way.
template <bool bf16>
float products(int64_t rounds) {
  simd::TileConfig config;
  for (int t = 0; t < 8; ++t) config.set(t, 16, 64);
  simd::AmxTiles tiles(config);
  for (int64_t r = 0; r < rounds; ++r) {
    if constexpr (bf16) {
      tiles.dp_bf16<0, 4, 5>();
      tiles.dp_bf16<1, 4, 5>();
      tiles.dp_bf16<2, 4, 5>();
      tiles.dp_bf16<3, 4, 5>();
    } else {
      tiles.dp_s8s8<0, 4, 5>();
      tiles.dp_s8s8<1, 4, 5>();
      tiles.dp_s8s8<2, 4, 5>();
      tiles.dp_s8s8<3, 4, 5>();
    }
  }
  alignas(64) float sums[16 * 16];
  tiles.store<3>(sums, 64);
  return sums[0];
}

}  // namespace

using V = simd::Amx;
const ProbeKernel probe_amx = {simd::probe_sum<V>,
                               simd::probe_fma<V, 16>,
                               16,
                               {products<true>, 4 * 2.0 * 16 * 16 * 32},
                               {products<false>, 4 * 2.0 * 16 * 16 * 64}};

}  // namespace sluice
