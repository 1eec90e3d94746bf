#include <cmath>

#include "base/fp.h"
#include "ops/attention/kernels.h"
#include "ops/attention/row.h"
#include "ops/kv_write/kv_cache.h"

namespace sluice {
namespace {

// The sequence's keys and values of one kv head, by absolute position.
template <class T>
struct PagedHead {
  const AttentionShape& shape;
  const AttentionTask& task;
  KvCacheView cache;

  PagedHead(const AttentionShape& s, const AttentionTask& t) : shape(s), task(t) {
    cache.kv_heads = s.kv_heads;
    cache.head_size = s.head_size;
  }
  const T* pool() const { return static_cast<const T*>(shape.cache); }
  // Dimension c of key j stands at key(j)[c * kKvBlock], of value j at value(j)[c].
  const T* key(int64_t j) const {
    return pool() + cache.key(task.blocks[j / kKvBlock], task.kv_head) + j % kKvBlock;
  }
  const T* value(int64_t j) const {
    return pool() + cache.value(task.blocks[j / kKvBlock], task.kv_head) +
           j % kKvBlock * shape.head_size;
  }
};

template <class T>
float score(const PagedHead<T>& kv, const float* q, int64_t j) {
  const T* key = kv.key(j);
  float z = 0.0f;
  for (int64_t c = 0; c < kv.shape.head_size; ++c)
    z = scalar::fma(q[c], static_cast<float>(key[c * kKvBlock]), z);
  return finish_score(z, kv.shape.scale, kv.shape.softcap);
}

// One query head of one row: the contract of attention.h, word for word. `a` holds 2 C floats.
template <class T>
void attend(const PagedHead<T>& kv, const float* q, int64_t p, int64_t h, float* a, float* out) {
  const int64_t c_size = kv.shape.head_size, first = first_visible(p, kv.shape.window);
  AttentionMerge state = attention_start(kv.shape.sinks, h);
  float z[kAttentionSplit];
  float* part = a + c_size;
  for (int64_t c = 0; c < c_size; ++c) a[c] = 0.0f;
  for (int64_t split = first / kAttentionSplit; split * kAttentionSplit <= p; ++split) {
    const int64_t start = split * kAttentionSplit;
    const int64_t begin = start > first ? start : first;
    const int64_t end = start + kAttentionSplit <= p ? start + kAttentionSplit : p + 1;
    float m_i = -INFINITY;
    for (int64_t j = begin; j < end; ++j) {
      z[j - start] = score(kv, q, j);
      m_i = scalar::max(z[j - start], m_i);  // a NaN is left to poison the sum, not the maximum
    }
    scalar::Sum32 sum;
    for (int64_t c = 0; c < c_size; ++c) part[c] = 0.0f;
    for (int64_t j = begin; j < end; ++j) {
      const float e = scalar::exp(z[j - start] - m_i);
      sum.add(j, e);
      const T* value = kv.value(j);
      for (int64_t c = 0; c < c_size; ++c)
        part[c] = scalar::fma(e, static_cast<float>(value[c]), part[c]);
    }
    state.add(m_i, sum.total());
    for (int64_t c = 0; c < c_size; ++c) a[c] = state.weighted(a[c], part[c]);
  }
  for (int64_t c = 0; c < c_size; ++c) out[c] = state.result(a[c]);
}

// kWhole only: the splits of one row are never shared out here.
template <class T>
void attention_rows(const AttentionShape& s, const AttentionTask& task) {
  const PagedHead<T> kv(s, task);
  const int64_t group = s.heads / s.kv_heads;
  for (int64_t t = task.row_begin; t < task.row_end; ++t) {
    for (int64_t h = task.kv_head * group; h < (task.kv_head + 1) * group; ++h)
      attend(kv, s.q + t * s.q_stride + h * s.head_size, s.positions[t], h, task.scratch,
             s.out + t * s.out_stride + h * s.head_size);
  }
}

}  // namespace

void attention_f32_reference(const AttentionShape& shape, const AttentionTask& task) {
  attention_rows<float>(shape, task);
}
void attention_bf16_reference(const AttentionShape& shape, const AttentionTask& task) {
  attention_rows<bf16>(shape, task);
}

}  // namespace sluice
