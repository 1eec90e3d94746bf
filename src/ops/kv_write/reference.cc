#include "base/fp.h"
#include "ops/kv_write/kernels.h"
#include "ops/kv_write/kv_cache.h"

namespace sluice {
namespace {

template <class T>
void write(const KvWriteRows& a) {
  KvCacheView cache;
  cache.kv_heads = a.kv_heads;
  cache.head_size = a.head_size;
  T* pool = static_cast<T*>(a.cache);
  for (int64_t t = 0; t < a.rows; ++t) {
    if (a.slots[t] < 0) continue;
    const int64_t block = a.slots[t] / kKvBlock, at = a.slots[t] % kKvBlock;
    for (int64_t g = 0; g < a.kv_heads; ++g) {
      T* key = pool + cache.key(block, g);
      T* value = pool + cache.value(block, g);
      for (int64_t c = 0; c < a.head_size; ++c) {
        key[c * kKvBlock + at] = T(a.k[t * a.k_stride + g * a.head_size + c]);
        value[at * a.head_size + c] = T(a.v[t * a.v_stride + g * a.head_size + c]);
      }
    }
  }
}

}  // namespace

void kv_write_f32_reference(const KvWriteRows& rows) {
  write<float>(rows);
}
void kv_write_bf16_reference(const KvWriteRows& rows) {
  write<bf16>(rows);
}

}  // namespace sluice
