// topk over the vector vocabulary: most groups of 64 values hold nothing above the threshold.
#pragma once

#include <cstdint>

#include "ops/topk/select.h"
#include "simd/math.h"

namespace sluice::simd {

// Lanes that may enter, as bits. Comparisons read subnormals as zero, which keeps "not less" a
// superset of the exact order; `strict` is only set for thresholds where it makes no difference.
template <class V>
uint32_t topk_candidates(typename V::F v, typename V::F threshold, bool strict) {
  return strict ? V::bits(V::greater(v, threshold)) : ~V::bits(V::less(v, threshold)) & 0xffffu;
}

template <class V>
void topk_append(const float* x, int64_t i, uint64_t mask, TopkBuffer& buffer) {
  for (; mask != 0; mask &= mask - 1) {
    const int64_t at = i + __builtin_ctzll(mask);
    const uint64_t key = topk_key<V>(x[at], at);
    buffer.keys[buffer.count] = key;
    buffer.count += key > buffer.floor ? 1 : 0;
  }
}

template <class V>
int64_t topk_scan(const float* x, int64_t begin, int64_t end, TopkBuffer& buffer) {
  const auto threshold = V::set1(buffer.threshold);
  const bool strict = buffer.strict;
  int64_t i = begin;
  while (i + 64 <= end && buffer.capacity - buffer.count >= kTopkRoom) {
    uint64_t mask = 0;
    for (int j = 0; j < 4; ++j)
      mask |= uint64_t{topk_candidates<V>(V::load(x + i + 16 * j), threshold, strict)} << (16 * j);
    if (mask != 0) topk_append<V>(x, i, mask, buffer);
    i += 64;
  }
  if (i + 64 <= end) return i;
  for (; i < end && buffer.capacity - buffer.count >= kTopkRoom; i += 16) {
    const int64_t n = end - i < 16 ? end - i : 16;
    const uint32_t lanes = (1u << n) - 1u;
    const uint32_t mask = topk_candidates<V>(V::load_n(x + i, n), threshold, strict) & lanes;
    topk_append<V>(x, i, mask, buffer);
  }
  return i < end ? i : end;
}

}  // namespace sluice::simd
