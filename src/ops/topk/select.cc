#include "ops/topk/select.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace sluice {
namespace {

// Room for candidates between two compactions: each raises the threshold, so a random row needs
// about log(N / K) of them and a rising one N / kSlack.
constexpr int64_t kSlack = 256;

// Keeps the k greatest keys and raises the floor to the least of them.
void compact(TopkBuffer& b, int64_t k, const float* x) {
  if (b.count <= k) return;
  std::nth_element(b.keys, b.keys + k - 1, b.keys + b.count, std::greater<uint64_t>());
  b.count = k;
  b.floor = b.keys[k - 1];
  const float value = x[topk_index(b.floor)];
  b.threshold = std::isnan(value) ? -INFINITY : value;
  // Against a subnormal or zero, "greater" would miss subnormals, which compare as zero.
  b.strict = !std::isnan(value) && std::fpclassify(value) != FP_SUBNORMAL && value != 0.0f;
}

void select_row(TopkScan* scan, const float* x, int64_t n, int64_t k, int32_t* ids, float* values) {
  uint64_t keys[4 * kTopkMost + kSlack];
  TopkBuffer b;
  b.keys = keys;
  b.capacity = 4 * k + kSlack;
  b.threshold = -INFINITY;
  // Even a NaN at the last index has a key above 0.
  for (int64_t i = 0; i < n;) {
    i = scan(x, i, n, b);
    if (i < n) compact(b, k, x);
  }
  compact(b, k, x);
  // k of them: every one of n >= k values had room to enter.
  std::sort(b.keys, b.keys + b.count, std::greater<uint64_t>());
  for (int64_t r = 0; r < b.count; ++r) {
    ids[r] = topk_index(b.keys[r]);
    if (values != nullptr) values[r] = x[ids[r]];
  }
}

}  // namespace

void select_topk(TopkScan* scan, const TopkRows& a) {
  for (int64_t r = 0; r < a.rows; ++r)
    select_row(scan, a.x + r * a.x_stride, a.n, a.k, a.ids + r * a.k,
               a.values != nullptr ? a.values + r * a.k : nullptr);
}

}  // namespace sluice
