// kv_write over the vector vocabulary. Values are copied; keys are turned: element c of a token
// lands 16 elements after element c - 1, so the tokens that share a block are written together,
// while its lines are in the first-level cache.
#pragma once

#include <cstdint>

#include "ops/kv_write/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

// n <= 16 values to the cache's dtype.
template <class V>
void store_cache(float* to, typename V::F v, int64_t n) {
  if (n == 16)
    V::store(to, v);
  else
    V::store_n(to, v, n);
}
template <class V>
void store_cache(uint16_t* to, typename V::F v, int64_t n) {
  if (n == 16) return V::store_bf16(to, v);
  uint16_t all[16];
  V::store_bf16(all, v);
  for (int64_t i = 0; i < n; ++i) to[i] = all[i];
}

// Masked loads only at the end of a head: they are slow on some machines.
template <class V>
typename V::F load_head(const float* p, int64_t n) {
  return n == 16 ? V::load(p) : V::load_n(p, n);
}

template <class V, class T>
void write_values(const float* v, T* to, int64_t c) {
  for (int64_t i = 0; i < c; i += 16) {
    const int64_t n = c - i < 16 ? c - i : 16;
    store_cache<V>(to + i, load_head<V>(v + i, n), n);
  }
}

// One token's key: rounded 16 at a time, then scattered.
template <class V, class T>
void write_key(const float* k, T* to, int64_t c) {
  for (int64_t i = 0; i < c; i += 16) {
    const int64_t n = c - i < 16 ? c - i : 16;
    T lanes[16];
    store_cache<V>(lanes, load_head<V>(k + i, n), 16);
    for (int64_t j = 0; j < n; ++j) to[(i + j) * 16] = lanes[j];
  }
}

template <class V, class T>
void kv_write_rows(const KvWriteRows& a) {
  const int64_t c = a.head_size, head = c * 16;
  T* cache = static_cast<T*>(a.cache);
  int64_t t = 0;
  while (t < a.rows) {
    if (a.slots[t] < 0) {
      ++t;
      continue;
    }
    const int64_t block = a.slots[t] / 16;
    int64_t end = t + 1;
    while (end < a.rows && a.slots[end] >= 0 && a.slots[end] / 16 == block) ++end;
    T* keys = cache + block * 2 * a.kv_heads * head;
    T* values = keys + a.kv_heads * head;
    for (int64_t g = 0; g < a.kv_heads; ++g) {
      for (int64_t r = t; r < end; ++r) {
        const int64_t at = a.slots[r] % 16;
        write_key<V>(a.k + r * a.k_stride + g * c, keys + g * head + at, c);
        write_values<V>(a.v + r * a.v_stride + g * c, values + g * head + at * c, c);
      }
    }
    t = end;
  }
}

}  // namespace sluice::simd
