// KvCacheView: one layer's paged keys and values on the device.
//
// A block holds B = 16 tokens. In it, per kv head g:
//   keys    [C][16]   dimension-major: one vector load gives one dimension of 16 keys
//   values  [16][C]   token-major
// Block b of a layer starts at b * block_elements(); keys of all heads come first, then values.
// The element type is f32 (compute f32) or bf16 (compute bf16). Slot = block * 16 + token in block.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace sluice {

inline constexpr int64_t kKvBlock = 16;

struct KvCacheView {
  DType dtype = DType::kF32;  // f32 or bf16
  void* data = nullptr;
  int64_t blocks = 0;
  int64_t kv_heads = 0;   // G
  int64_t head_size = 0;  // C

  constexpr int64_t block_elements() const { return 2 * kv_heads * head_size * kKvBlock; }
  // Element offsets inside the layer's pool.
  constexpr int64_t key(int64_t block, int64_t g) const {
    return block * block_elements() + g * head_size * kKvBlock;
  }
  constexpr int64_t value(int64_t block, int64_t g) const {
    return block * block_elements() + (kv_heads + g) * head_size * kKvBlock;
  }
};

}  // namespace sluice
