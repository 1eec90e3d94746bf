// The AMX rows over emulated tiles: what cpu_amx.cc does, on any machine, for tests.
#include <cstring>

#include "ops/matmul/emulated_machine.h"
#include "ops/matmul/kernels.h"

namespace sluice {
namespace {

struct Machine : EmulatedMachine {
  static void expand_mxfp4(const std::byte* step, std::byte* tile) {
    for (int i = 0; i < 256; ++i) {
      const float scale = e8m0_to_f32(static_cast<uint8_t>(step[i % 16]));
      const auto codes = static_cast<uint8_t>(step[16 + i]);
      const uint16_t pair[2] = {bf16(e2m1_to_f32(codes & 15) * scale).bits,
                                bf16(e2m1_to_f32(codes >> 4) * scale).bits};
      std::memcpy(tile + i / 16 * 128 + i % 16 * 4, pair, 4);
    }
  }
  struct Fp8Block {
    float scales[16];
  };
  static void begin_fp8(const std::byte* scales, Fp8Block* block) {
    std::memcpy(block->scales, scales, sizeof(block->scales));
  }
  static void expand_fp8(const std::byte* codes, const Fp8Block& block, std::byte* tile) {
    for (int64_t c = 0; c < 16; ++c) {
      const float scale = block.scales[c];
      for (int64_t k = 0; k < 32; ++k) {
        const float w = e4m3_to_f32(static_cast<uint8_t>(codes[16 * k + c])) * scale;
        const uint16_t bits = bf16(w).bits;
        std::memcpy(tile + k / 2 * 128 + 4 * c + k % 2 * 2, &bits, 2);
      }
    }
  }
};

}  // namespace

const PanelKernel matmul_bf16_bf16_amx_emulated = {
    simd::prepare_tiles<Machine>, simd::multiply_tiles<Machine, WeightFormat::kBF16>,
    matmul_bf16_bf16_reference.store};
const PanelKernel matmul_bf16_mxfp4_amx_emulated = {
    simd::prepare_tiles<Machine>, simd::multiply_tiles<Machine, WeightFormat::kMXFP4>,
    matmul_bf16_mxfp4_reference.store};
const PanelKernel matmul_bf16_fp8_amx_emulated = {simd::prepare_tiles<Machine>,
                                                  simd::multiply_tiles<Machine, WeightFormat::kFP8>,
                                                  matmul_bf16_fp8_reference.store};

}  // namespace sluice
