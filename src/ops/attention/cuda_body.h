// attention's CUDA kernels: a block takes one row and up to kTile query heads of one kv head, so
// that each key and value is read once for all of them. Whole rows walk their splits one after the
// other; partial ones take a single split, and a second kernel merges the splits of a row in order.
//
// A thread keeps each chain of the contract to itself: first one key's scores with four heads, then
// one dimension's weighted values of two heads. Indices of rows, blocks and keys are 32-bit, as a
// launch's blocks and a cache's positions are.
#pragma once

#include "base/fp.h"
#include "device/block.h"
#include "ops/attention/kernels.h"
#include "ops/attention/row.h"
#include "ops/kv_write/kv_cache.h"
#include "tensor/view.h"

namespace sluice {

// One row: where it stands and what it sees. Rows beyond the last sequence see nothing.
struct AttentionPlace {
  int position = -1, first = 0;
  const int32_t* blocks = nullptr;

  SLUICE_HD AttentionPlace(const AttentionShape& s, int row) {
    if (row >= s.query_starts[s.sequences]) return;
    // query_starts[low] <= row < query_starts[high]
    int low = 0, high = static_cast<int>(s.sequences);
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (s.query_starts[middle] <= row)
        low = middle;
      else
        high = middle;
    }
    position = s.positions[row];
    first = static_cast<int>(first_visible(position, s.window));
    blocks = s.block_tables + low * s.table_stride;
  }
  SLUICE_HD int first_split() const { return first / kSplit; }
  SLUICE_HD int splits() const { return position < 0 ? 0 : position / kSplit + 1 - first_split(); }
  // The block of the cache that holds a position.
  SLUICE_HD int block(int at) const { return blocks[at / static_cast<int>(kKvBlock)]; }

 private:
  static constexpr int kSplit = static_cast<int>(kAttentionSplit);
};

template <class T>
struct AttentionBody {
  static constexpr int kThreads = 256;
  static constexpr int kTile = static_cast<int>(kAttentionTile);  // query heads: a warp each
  static constexpr int kScored = 4;                               // of a thread, in scores
  static constexpr int kWeighed = 2;                              // and in values
  static constexpr int kInBlock = static_cast<int>(kKvBlock);
  static constexpr int kKeys = static_cast<int>(kAttentionSplit);
  static constexpr int kLanes = kThreads / (kTile / kWeighed);  // dimensions side by side
  AttentionShape s;
  AttentionTask task;

  SLUICE_HD bool whole() const { return task.phase == AttentionTask::Phase::kWhole; }
  SLUICE_HD int group() const { return static_cast<int>(s.heads) / static_cast<int>(s.kv_heads); }
  SLUICE_HD int tiles() const { return (group() + kTile - 1) / kTile; }
  SLUICE_HD int slots() const { return whole() ? 1 : static_cast<int>(task.splits); }
  int64_t blocks() const { return s.rows * s.kv_heads * tiles() * slots(); }
  // Queries and sums [C][kTile], weights [128][kTile], and a state per head.
  size_t shared_bytes() const {
    return static_cast<size_t>((2 * s.head_size + kKeys + 4) * kTile) * sizeof(float);
  }

  template <class Block>
  struct Work {
    Block& block;
    AttentionPlace at;
    int row, g, head, slot;  // head: the first of the tile
    int heads, c_size;       // of the tile; C
    float *q, *a, *z, *m, *l, *x, *y;
  };

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int i = static_cast<int>(block.index()), kv_heads = static_cast<int>(s.kv_heads);
    const int slot = i % slots(), tile = i / slots() % tiles();
    const int pair = i / slots() / tiles(), row = pair / kv_heads, g = pair % kv_heads;
    const int left = group() - tile * kTile;
    const int c = static_cast<int>(s.head_size);
    float* q = block.template shared<float>();
    float *a = q + c * kTile, *z = a + c * kTile, *state = z + kKeys * kTile;
    Work<Block> w{block,
                  AttentionPlace(s, row),
                  row,
                  g,
                  g * group() + tile * kTile,
                  slot,
                  left < kTile ? left : kTile,
                  c,
                  q,
                  a,
                  z,
                  state,
                  state + kTile,
                  state + 2 * kTile,
                  state + 3 * kTile};
    if (!whole() && task.split + slot >= w.at.splits()) return;
    start(w);
    const int first = w.at.first_split() + (whole() ? 0 : static_cast<int>(task.split) + slot);
    if (!whole()) return attend(w, first);
    for (int n = 0; n < w.at.splits(); ++n) attend(w, first + n);
    finish(w);
  }

 private:
  // Four neighbours of a tile, one load of shared memory.
  struct alignas(16) Four {
    float v[kScored];
  };

  template <class Block>
  SLUICE_HD void start(Work<Block>& w) const {
    w.block.each([&](int t) {
      const float* q = s.q + w.row * s.q_stride + w.head * w.c_size;
      for (int i = t; i < w.c_size * kTile; i += kThreads) {
        const int c = i / kTile, h = i % kTile;
        w.q[i] = h < w.heads ? q[h * w.c_size + c] : 0.0f;
        w.a[i] = 0.0f;
      }
      if (t >= w.heads) return;
      const AttentionMerge state = attention_start(s.sinks, w.head + t);
      w.m[t] = state.m;
      w.l[t] = state.l;
    });
  }

  template <class Block>
  SLUICE_HD void attend(Work<Block>& w, int split) const {
    const int start = split * kKeys, seen = w.at.position - start + 1;
    const int begin = w.at.first > start ? w.at.first - start : 0,
              end = seen < kKeys ? seen : kKeys;
    score(w, start, begin, end);
    weigh(w, begin, end);
    add_values(w, start, begin, end);
  }

  template <class Block>
  SLUICE_HD void score(Work<Block>& w, int start, int begin, int end) const {
    w.block.each([&](int t) {
      const int key = t % kKeys, h = t / kKeys * kScored;
      if (h >= w.heads || key < begin || key >= end) return;
      const T* k = pool() + cache().key(w.at.block(start + key), w.g) + key % kInBlock;
      Four sum = {};
      for (int c = 0; c < w.c_size; ++c) {
        const Four q = *reinterpret_cast<const Four*>(w.q + c * kTile + h);
        const float v = static_cast<float>(k[c * kKvBlock]);
        for (int r = 0; r < kScored; ++r) sum.v[r] = scalar::fma(q.v[r], v, sum.v[r]);
      }
      *reinterpret_cast<Four*>(w.z + key * kTile + h) = sum;
    });
  }

  // Products to scores and exponentials; a warp per head, whose lane j has the keys j, j + 32 ...
  template <class Block>
  SLUICE_HD void weigh(Work<Block>& w, int begin, int end) const {
    typename Block::template PerThread<float> most(w.block), sum(w.block);
    w.block.each([&](int t) {
      const int h = t / kWarp;
      float m = -__builtin_inff();
      for (int key = t % kWarp; key < end && h < w.heads; key += kWarp) {
        if (key < begin) continue;
        float& z = w.z[key * kTile + h];
        z = finish_score(z, s.scale, s.softcap);
        m = scalar::max(z, m);  // a NaN is left to poison the sum, not the maximum
      }
      most[t] = m;
    });
    w.block.warp_fold(most, [](float low, float high) { return scalar::max(low, high); });
    w.block.each([&](int t) {
      const int h = t / kWarp;
      float partial = 0.0f;
      for (int key = t % kWarp; key < end && h < w.heads; key += kWarp) {
        if (key < begin) continue;
        float& z = w.z[key * kTile + h];
        z = scalar::exp(z - most[t]);
        partial += z;
      }
      sum[t] = partial;
    });
    w.block.warp_sum(sum);
    w.block.each([&](int t) {
      const int h = t / kWarp;
      if (t % kWarp != 0 || h >= w.heads) return;
      if (!whole()) {
        float* part = partial(w, h);
        part[w.c_size] = most[t];
        part[w.c_size + 1] = sum[t];
        return;
      }
      AttentionMerge state{w.m[h], w.l[h]};
      state.add(most[t], sum[t]);
      w.m[h] = state.m;
      w.l[h] = state.l;
      w.x[h] = state.x;
      w.y[h] = state.y;
    });
  }

  template <class Block>
  SLUICE_HD void add_values(Work<Block>& w, int start, int begin, int end) const {
    w.block.each([&](int t) {
      const int h = t / kLanes * kWeighed;
      if (h >= w.heads) return;
      for (int c = t % kLanes; c < w.c_size; c += kLanes) {
        float sum[kWeighed] = {};
        for (int key = begin; key < end;) {
          const T* v = pool() + cache().value(w.at.block(start + key), w.g) + c;
          const int next = (key / kInBlock + 1) * kInBlock, stop = next < end ? next : end;
          for (; key < stop; ++key) {
            const float value = static_cast<float>(v[key % kInBlock * w.c_size]);
            for (int r = 0; r < kWeighed; ++r)
              sum[r] = scalar::fma(w.z[key * kTile + h + r], value, sum[r]);
          }
        }
        for (int r = 0; r < kWeighed && h + r < w.heads; ++r) put(w, h + r, c, sum[r]);
      }
    });
  }

  template <class Block>
  SLUICE_HD void put(Work<Block>& w, int h, int c, float sum) const {
    if (!whole()) {
      partial(w, h)[c] = sum;
      return;
    }
    float& a = w.a[c * kTile + h];
    a = AttentionMerge{w.m[h], w.l[h], w.x[h], w.y[h]}.weighted(a, sum);
  }

  template <class Block>
  SLUICE_HD void finish(Work<Block>& w) const {
    w.block.each([&](int t) {
      float* out = s.out + w.row * s.out_stride + w.head * w.c_size;
      for (int i = t; i < w.heads * w.c_size; i += kThreads) {
        const int h = i / w.c_size, c = i % w.c_size;
        out[i] = AttentionMerge{w.m[h], w.l[h]}.result(w.a[c * kTile + h]);
      }
    });
  }

  SLUICE_HD const T* pool() const { return static_cast<const T*>(s.cache); }
  SLUICE_HD KvCacheView cache() const {
    KvCacheView view;
    view.kv_heads = s.kv_heads;
    view.head_size = s.head_size;
    return view;
  }
  template <class Block>
  SLUICE_HD float* partial(const Work<Block>& w, int h) const {
    return task.partial +
           ((int64_t{w.row} * task.splits + w.slot) * s.heads + w.head + h) * (s.head_size + 2);
  }
};

// One row and query head: the splits of this round, in order, into the state.
struct AttentionMergeBody {
  static constexpr int kThreads = 128;
  AttentionShape s;
  AttentionTask task;

  int64_t blocks() const { return s.rows * s.heads; }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int heads = static_cast<int>(s.heads), index = static_cast<int>(block.index());
    const int row = index / heads, h = index % heads;
    const int64_t width = s.head_size + 2, left = AttentionPlace(s, row).splits() - task.split;
    const int64_t splits = left < task.splits ? left : task.splits;
    float* state = task.state + block.index() * width;
    const float* partial = task.partial + (int64_t{row} * task.splits * s.heads + h) * width;
    typename Block::template PerThread<float> m(block), l(block);
    for (int64_t from = 0; from < s.head_size; from += kThreads) {
      block.each([&](int t) {
        const int64_t c = from + t;
        AttentionMerge merge = attention_start(s.sinks, h);
        if (!task.first) merge = {state[s.head_size], state[s.head_size + 1]};
        float a = task.first || c >= s.head_size ? 0.0f : state[c];
        for (int64_t i = 0; i < splits; ++i) {
          const float* part = partial + i * s.heads * width;
          merge.add(part[s.head_size], part[s.head_size + 1]);
          if (c < s.head_size) a = merge.weighted(a, part[c]);
        }
        m[t] = merge.m;
        l[t] = merge.l;
        if (c >= s.head_size) return;
        if (task.last)
          s.out[row * s.out_stride + h * s.head_size + c] = merge.result(a);
        else
          state[c] = a;
      });
    }
    if (task.last) return;
    block.each([&](int t) {
      if (t != 0) return;
      state[s.head_size] = m[t];
      state[s.head_size + 1] = l[t];
    });
  }
};

}  // namespace sluice
