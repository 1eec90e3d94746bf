// kv_write's CUDA kernel: one block per row, every head of it.
#pragma once

#include "base/fp.h"
#include "device/block.h"
#include "ops/kv_write/kernels.h"
#include "ops/kv_write/kv_cache.h"

namespace sluice {

template <class T>
struct KvWriteBody {
  static constexpr int kThreads = 256;
  KvWriteRows a;

  static int64_t blocks(const KvWriteRows& a) { return a.rows; }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int64_t row = block.index();
    const int32_t slot = a.slots[row];
    if (slot < 0) return;
    KvCacheView cache;
    cache.kv_heads = a.kv_heads;
    cache.head_size = a.head_size;
    const int64_t in_block = slot / kKvBlock, at = slot % kKvBlock;
    const float* k = a.k + row * a.k_stride;
    const float* v = a.v + row * a.v_stride;
    block.each([&](int t) {
      for (int64_t i = t; i < a.kv_heads * a.head_size; i += kThreads) {
        const int64_t g = i / a.head_size, c = i % a.head_size;
        T* pool = static_cast<T*>(a.cache);
        pool[cache.key(in_block, g) + c * kKvBlock + at] = T(k[i]);
        pool[cache.value(in_block, g) + at * a.head_size + c] = T(v[i]);
      }
    });
  }
};

}  // namespace sluice
