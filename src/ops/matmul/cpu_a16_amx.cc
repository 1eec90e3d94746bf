#include "ops/matmul/a16_tiles.h"
#include "ops/matmul/cpu_a16.h"
#include "ops/matmul/kernels.h"
#include "simd/amx_vector.h"

namespace sluice {
namespace {

using V = simd::Amx;

struct Machine : simd::TileMachine<V> {
  template <WeightFormat format>
  static void expand(const std::byte* panel, int64_t k, int64_t block, int64_t g, std::byte* tile) {
    alignas(64) float w[32 * 16];
    simd::decode_group<V, format, true>(panel, k, block, g, w);
    for (int64_t j = 0; j < 16; ++j) {
      const V::I even = V::shr<16>(V::load_i32(w + 32 * j));
      const V::I odd = V::andi(V::load_i32(w + 32 * j + 16), V::seti(~0xffff));
      V::store_i32(tile + 64 * j, V::ori(even, odd));
    }
  }
};

}  // namespace

#define SLUICE_BLOCK_FORMAT(name, format)                                                \
  const PanelKernel matmul_bf16_##name##_amx = {                                         \
      simd::prepare_tiles<Machine>, simd::multiply_tiles<Machine, WeightFormat::format>, \
      simd::store<V>};
#include "ops/matmul/a16_formats.inc"
#undef SLUICE_BLOCK_FORMAT

}  // namespace sluice
