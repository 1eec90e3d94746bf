// The tiles of mode a16 over emulated tiles: what cpu_a16_amx.cc does, on any machine, for tests.
#include <cstring>

#include "ops/matmul/a16_tiles.h"
#include "ops/matmul/block_values.h"
#include "ops/matmul/emulated_machine.h"
#include "ops/matmul/kernels.h"

namespace sluice {
namespace {

struct Machine : EmulatedMachine {
  template <WeightFormat format>
  static void expand(const std::byte* panel, int64_t k, int64_t block, int64_t g, std::byte* tile) {
    for (int64_t c = 0; c < 16; ++c) {
      const GroupColumn column = read_group(format, panel, k, block, c, g);
      for (int64_t i = 0; i < 32; ++i) {
        const uint16_t bits = bf16(column.weight(i)).bits;
        std::memcpy(tile + i / 2 * 64 + 4 * c + i % 2 * 2, &bits, 2);
      }
    }
  }
};

}  // namespace

#define SLUICE_BLOCK_FORMAT(name, format)                                                \
  const PanelKernel matmul_bf16_##name##_amx_emulated = {                                \
      simd::prepare_tiles<Machine>, simd::multiply_tiles<Machine, WeightFormat::format>, \
      store_tile_reference};
#include "ops/matmul/a16_formats.inc"
#undef SLUICE_BLOCK_FORMAT

}  // namespace sluice
