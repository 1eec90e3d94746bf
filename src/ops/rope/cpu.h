// rope over the vector vocabulary: sixteen pairs at a time.
#pragma once

#include <cstdint>

#include "ops/rope/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

// cos and -sin of up to kPairs pairs of one token, apart: all its heads use them. The product with
// -sin is the negated product with sin, exactly.
struct RopeTable {
  static constexpr int64_t kPairs = 256;
  alignas(64) float cos[kPairs];
  alignas(64) float minus_sin[kPairs];
};

template <class V>
void rotate(float* x, int64_t half, const RopeTable& table, int64_t first, int64_t pairs) {
  float* a = x + first;
  float* b = a + half;
  int64_t i = 0;
  for (; i + 16 <= pairs; i += 16) {
    const auto c = V::load(table.cos + i), s = V::load(table.minus_sin + i);
    const auto u = V::load(a + i), v = V::load(b + i);
    V::store(a + i, V::fma(u, c, V::mul(v, s)));
    V::store(b + i, V::fma(v, c, negate<V>(V::mul(u, s))));
  }
  if (i == pairs) return;
  const int64_t n = pairs - i;
  const auto c = V::load_n(table.cos + i, n), s = V::load_n(table.minus_sin + i, n);
  const auto u = V::load_n(a + i, n), v = V::load_n(b + i, n);
  V::store_n(a + i, V::fma(u, c, V::mul(v, s)), n);
  V::store_n(b + i, V::fma(v, c, negate<V>(V::mul(u, s))), n);
}

template <class V>
void rope_rows(const RopeRows& a) {
  RopeTable table;
  for (int64_t t = 0; t < a.rows; ++t) {
    const float* cos_sin = a.cos_sin + t * a.half * 2;
    for (int64_t first = 0; first < a.half; first += RopeTable::kPairs) {
      const int64_t left = a.half - first;
      const int64_t pairs = left < RopeTable::kPairs ? left : RopeTable::kPairs;
      for (int64_t i = 0; i < pairs; ++i) {
        table.cos[i] = cos_sin[2 * (first + i)];
        table.minus_sin[i] = -cos_sin[2 * (first + i) + 1];
      }
      for (int64_t h = 0; h < a.heads; ++h)
        rotate<V>(a.x + t * a.stride + h * 2 * a.half, a.half, table, first, pairs);
    }
  }
}

}  // namespace sluice::simd
