// attention over the vector vocabulary: the order of operations of reference.cc, for tiles of query
// rows that see the same keys of a split (heads of one kv head, and tokens where none is masked).
//
// A tile's scores are a small matrix product, rows x 16 keys per vector, that reads each key vector
// once for all rows; its weighted values are another, rows x 16 dimensions per vector. Both keep a
// sum in a register from its first term to its last, so every chain is the contract's.
#pragma once

#include <cstdint>

#include "ops/attention/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

template <class V>
typename V::F load_kv(const float* p) {
  return V::load(p);
}
template <class V>
typename V::F load_kv(const uint16_t* p) {
  return V::load_bf16(p);
}

template <class V>
struct AttentionTiles {
  // Accumulators that leave room for operands, and the most rows of a tile.
  static constexpr int kAccumulators = V::kRegisters >= 32 ? 16 : 4;
  static constexpr int kRows = V::kRegisters >= 32 ? 8 : 4;
  static constexpr int columns(int rows) {
    return kAccumulators / rows < 8 ? kAccumulators / rows : 8;
  }
};

// The keys [begin, end) of one split (0 to 128) that a tile sees, and where its blocks lie.
template <class V, class T>
struct SplitView {
  int64_t begin = 0, end = 0;
  const T* keys[8] = {};
  const T* values[8] = {};
  // Where the next split's keys and values lie, for asking them of memory a split ahead; only when
  // so few rows share a key that its way from memory is what takes time.
  bool ahead = false;
  const T* next_keys[8] = {};
  const T* next_values[8] = {};
  int64_t first_block() const { return begin / 16; }
  int64_t end_block() const { return (end + 15) / 16; }
};

// Up to eight query rows: where q is read and (m, l, a) are kept; scores and exponentials z.
template <class V>
struct AttentionTile {
  static constexpr int64_t kRow = 128;
  const float* q[8] = {};
  float* a[8] = {};
  float m[8] = {}, l[8] = {};  // of this split
  float x[8] = {}, y[8] = {};  // factors of the merge: state, split
  float* z = nullptr;          // [8][128]
};

// z[r][block] = scale * (q_r . key) for the blocks [block, end), Columns at a time.
template <class V, class T, int Rows, int Columns>
void score_blocks(const AttentionTile<V>& tile, const SplitView<V, T>& split, int64_t block,
                  int64_t end, int64_t c_size, float scale) {
  for (; block + Columns <= end; block += Columns) {
    typename V::F sum[Rows][Columns];
    for (int r = 0; r < Rows; ++r)
      for (int b = 0; b < Columns; ++b) sum[r][b] = V::zero();
    constexpr int64_t kLine = 4 / sizeof(T);  // steps of c to a cache line
    for (int64_t c = 0; c < c_size; c += kLine) {
      if (split.ahead) {
#pragma GCC unroll 8
        for (int b = 0; b < Columns; ++b) {
          V::prefetch_l2(split.next_keys[block + b] + c * 16);
          V::prefetch_l2(split.next_values[block + b] + c * 16);
        }
      }
#pragma GCC unroll 2
      for (int64_t i = c; i < c + kLine; ++i) {
        typename V::F key[Columns];
#pragma GCC unroll 8
        for (int b = 0; b < Columns; ++b) key[b] = load_kv<V>(split.keys[block + b] + i * 16);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
          const auto q = V::set1(tile.q[r][i]);
#pragma GCC unroll 8
          for (int b = 0; b < Columns; ++b) sum[r][b] = V::fma(q, key[b], sum[r][b]);
        }
      }
    }
    for (int r = 0; r < Rows; ++r)
      for (int b = 0; b < Columns; ++b)
        V::store(tile.z + r * AttentionTile<V>::kRow + (block + b) * 16,
                 V::mul(V::set1(scale), sum[r][b]));
  }
  if constexpr (Columns > 1)
    score_blocks<V, T, Rows, Columns / 2>(tile, split, block, end, c_size, scale);
}

// The softcap and the mask of one vector of scores; `block` is its place in the split.
template <class V, class T>
typename V::F finish_scores(typename V::F z, const SplitView<V, T>& split, int64_t block,
                            float softcap) {
  if (softcap > 0) z = V::mul(V::set1(softcap), tanh<V>(V::div(z, V::set1(softcap))));
  const int64_t first = split.begin - block * 16, end = split.end - block * 16;
  const auto masked = V::set1(-__builtin_inff());
  if (end < 16) z = V::select(V::first(end), z, masked);
  if (first > 0) z = V::select(V::first(first), masked, z);
  return z;
}

// Scores to exponentials, m and l, row by row. A masked key has the score minus infinity here, and
// so the exponential 0, which changes no sum; its value is never read.
template <class V, class T>
void exponentials(AttentionTile<V>& tile, int rows, const SplitView<V, T>& split, float softcap) {
  for (int r = 0; r < rows; ++r) {
    float* z = tile.z + r * AttentionTile<V>::kRow;
    auto most = V::set1(-__builtin_inff());
    for (int64_t b = split.first_block(); b < split.end_block(); ++b) {
      const auto v = finish_scores<V>(V::load(z + b * 16), split, b, softcap);
      V::store(z + b * 16, v);
      most = V::max(v, most);  // a NaN is left to poison the sum, not the maximum
    }
    tile.m[r] = V::reduce_max(most);
    const auto m = V::set1(tile.m[r]);
    typename V::F sum[2] = {V::zero(), V::zero()};
    for (int64_t b = split.first_block(); b < split.end_block(); ++b) {
      const auto e = exp<V>(V::sub(V::load(z + b * 16), m));
      V::store(z + b * 16, e);
      if ((b & 1) == 0)
        sum[0] = V::add(sum[0], e);
      else
        sum[1] = V::add(sum[1], e);
    }
    tile.l[r] = V::reduce_add(V::add(sum[0], sum[1]));
  }
}

// Factors that bring the state (m, l) and this split's to their common maximum; updates the state.
template <class V>
void merge_factors(AttentionTile<V>& tile, int rows, float* m, float* l) {
  float at[16] = {};
  for (int r = 0; r < rows; ++r) {
    const float merged = m[r] > tile.m[r] ? m[r] : tile.m[r];
    at[r] = m[r] - merged;
    at[8 + r] = tile.m[r] - merged;
    m[r] = merged;
  }
  V::store(at, exp<V>(V::load(at)));
  for (int r = 0; r < rows; ++r) {
    tile.x[r] = at[r];
    tile.y[r] = at[8 + r];
    l[r] = __builtin_fmaf(l[r], tile.x[r], tile.l[r] * tile.y[r]);
  }
}

// a_r[c..] = a_r x_r + (sum over the split's keys of e v) y_r, or the bare sum when Raw, for the
// vectors of c in [c, c_size), Columns at a time.
template <class V, class T, int Rows, int Columns, bool Raw>
void weigh_values(const AttentionTile<V>& tile, const SplitView<V, T>& split, int64_t c,
                  int64_t c_size) {
  for (; c + Columns * 16 <= c_size; c += Columns * 16) {
    typename V::F sum[Rows][Columns];
    for (int r = 0; r < Rows; ++r)
      for (int b = 0; b < Columns; ++b) sum[r][b] = V::zero();
    for (int64_t block = split.first_block(); block < split.end_block(); ++block) {
      const int64_t from = split.begin > block * 16 ? split.begin - block * 16 : 0;
      const int64_t to = split.end < block * 16 + 16 ? split.end - block * 16 : 16;
      const T* values = split.values[block] + c;
      const float* e = tile.z + block * 16;
      for (int64_t j = from; j < to; ++j) {
        typename V::F value[Columns];
#pragma GCC unroll 8
        for (int b = 0; b < Columns; ++b) value[b] = load_kv<V>(values + j * c_size + b * 16);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
          const auto weight = V::set1(e[r * AttentionTile<V>::kRow + j]);
#pragma GCC unroll 8
          for (int b = 0; b < Columns; ++b) sum[r][b] = V::fma(weight, value[b], sum[r][b]);
        }
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int b = 0; b < Columns; ++b) {
        float* a = tile.a[r] + c + b * 16;
        const auto split_part = V::mul(sum[r][b], V::set1(tile.y[r]));
        V::store(a, Raw ? sum[r][b] : V::fma(V::load(a), V::set1(tile.x[r]), split_part));
      }
    }
  }
  if constexpr (Columns > 1) weigh_values<V, T, Rows, Columns / 2, Raw>(tile, split, c, c_size);
}

// One split for `rows` (a power of two up to Rows) rows whose state is m, l and tile.a.
template <class V, class T, bool Raw, int Rows>
void attend_tile(AttentionTile<V>& tile, int rows, const SplitView<V, T>& split,
                 const AttentionShape& s, float* m, float* l) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return attend_tile<V, T, Raw, Rows / 2>(tile, rows, split, s, m, l);
  }
  constexpr int kColumns = AttentionTiles<V>::columns(Rows);
  score_blocks<V, T, Rows, kColumns>(tile, split, split.first_block(), split.end_block(),
                                     s.head_size, s.scale);
  exponentials<V>(tile, Rows, split, s.softcap);
  if constexpr (Raw) {
    for (int r = 0; r < Rows; ++r) m[r] = tile.m[r], l[r] = tile.l[r];
  } else {
    merge_factors<V>(tile, Rows, m, l);
  }
  weigh_values<V, T, Rows, kColumns, Raw>(tile, split, 0, s.head_size);
}

// The state of a task's query rows, in its scratch; row = (token, head of the kv head's group).
struct AttentionState {
  float *a, *m, *l, *z;
};

// One task: the state of its query rows, and the walk over splits and tiles.
template <class V, class T>
class AttentionWalk {
 public:
  AttentionWalk(const AttentionShape& s, const AttentionTask& task)
      : s_(s), task_(task), c_(s.head_size), group_(s.heads / s.kv_heads) {}

  void whole() {
    const int64_t rows = (task_.row_end - task_.row_begin) * group_;
    const AttentionState state = carve(rows);
    int64_t first = INT64_MAX, last = -1;
    for (int64_t t = task_.row_begin; t < task_.row_end; ++t) {
      const int64_t p = s_.positions[t], start = first_visible(p);
      if (p >= 0 && start < first) first = start;
      if (p > last) last = p;
    }
    for (int64_t r = 0; r < rows; ++r)
      start_row(r % group_, state.a + r * c_, state.m + r, state.l + r);
    if (last >= 0)
      for (int64_t split = first / 128; split <= last / 128; ++split) walk_split(state, split);
    for (int64_t r = 0; r < rows; ++r)
      finish_row(task_.row_begin + r / group_, r % group_, state.a + r * c_, state.l[r]);
  }

  void partial() {
    const int64_t p = s_.positions[task_.row_begin], start = task_.split * 128;
    SplitView<V, T> split;
    split.begin = first_visible(p) > start ? first_visible(p) - start : 0;
    split.end = p + 1 - start < 128 ? p + 1 - start : 128;
    find_blocks(split, task_.split);
    float* a = task_.partial;
    const AttentionState state{a, a + group_ * c_, a + group_ * (c_ + 1), task_.scratch};
    attend_rows<true>(state, split, 0, group_);
  }

  void merge() {
    float* a = task_.state;
    float *m = a + group_ * c_, *l = m + group_;
    for (int64_t h = 0; h < group_; ++h) {
      if (task_.first) start_row(h, a + h * c_, m + h, l + h);
      for (int64_t i = 0; i < task_.splits; ++i) {
        const float* part = task_.partial + i * task_.partial_stride;
        AttentionTile<V> tile;
        tile.m[0] = part[group_ * c_ + h];
        tile.l[0] = part[group_ * (c_ + 1) + h];
        merge_factors<V>(tile, 1, m + h, l + h);
        const auto x = V::set1(tile.x[0]), y = V::set1(tile.y[0]);
        for (int64_t c = 0; c < c_; c += 16) {
          float* to = a + h * c_ + c;
          V::store(to, V::fma(V::load(to), x, V::mul(V::load(part + h * c_ + c), y)));
        }
      }
      if (task_.last) finish_row(task_.row_begin, h, a + h * c_, l[h]);
    }
  }

 private:
  AttentionState carve(int64_t rows) const {
    float* a = task_.scratch;
    return {a, a + rows * c_, a + rows * c_ + rows, a + rows * (c_ + 2)};
  }
  int64_t first_visible(int64_t p) const {
    return s_.window > 0 && p - s_.window + 1 > 0 ? p - s_.window + 1 : 0;
  }
  void start_row(int64_t h, float* a, float* m, float* l) const {
    *m = s_.sinks != nullptr ? s_.sinks[task_.kv_head * group_ + h] : -__builtin_inff();
    *l = s_.sinks != nullptr ? 1.0f : 0.0f;
    for (int64_t c = 0; c < c_; c += 16) V::store(a + c, V::zero());
  }
  void finish_row(int64_t t, int64_t h, const float* a, float l) const {
    float* out = s_.out + t * s_.out_stride + (task_.kv_head * group_ + h) * c_;
    const auto sum = V::set1(l);
    for (int64_t c = 0; c < c_; c += 16)
      V::store(out + c, l == 0.0f ? V::zero() : V::div(V::load(a + c), sum));
  }

  void find_blocks(SplitView<V, T>& view, int64_t split) const {
    const T* cache = static_cast<const T*>(s_.cache);
    const int64_t head = c_ * 16;
    for (int64_t b = view.first_block(); b < view.end_block(); ++b) {
      const int64_t block = task_.blocks[split * 8 + b];
      view.keys[b] = cache + (block * 2 * s_.kv_heads + task_.kv_head) * head;
      view.values[b] = view.keys[b] + s_.kv_heads * head;
    }
  }

  void look_ahead(SplitView<V, T>& view, int64_t split, int64_t position) const {
    const T* cache = static_cast<const T*>(s_.cache);
    const int64_t head = c_ * 16, last = position / 16;
    view.ahead = last >= (split + 1) * 8;
    for (int64_t b = view.first_block(); b < view.end_block() && view.ahead; ++b) {
      const int64_t wanted = (split + 1) * 8 + b;
      const int64_t block = task_.blocks[wanted < last ? wanted : last];
      view.next_keys[b] = cache + (block * 2 * s_.kv_heads + task_.kv_head) * head;
      view.next_values[b] = view.next_keys[b] + s_.kv_heads * head;
    }
  }

  // All rows that see something of the split, in runs of tokens that see the same of it.
  void walk_split(const AttentionState& state, int64_t index) {
    const int64_t start = index * 128;
    int64_t t = task_.row_begin;
    while (t < task_.row_end) {
      SplitView<V, T> split;
      visible(t, start, split.begin, split.end);
      int64_t end = t + 1;
      for (int64_t b, e; end < task_.row_end; ++end) {
        visible(end, start, b, e);
        if (b != split.begin || e != split.end) break;
      }
      if (split.begin < split.end) {
        find_blocks(split, index);
        if (task_.row_end - task_.row_begin == 1) look_ahead(split, index, s_.positions[t]);
        attend_rows<false>(state, split, (t - task_.row_begin) * group_,
                           (end - task_.row_begin) * group_);
      }
      t = end;
    }
  }
  void visible(int64_t t, int64_t start, int64_t& begin, int64_t& end) const {
    const int64_t p = s_.positions[t], first = first_visible(p) - start, last = p + 1 - start;
    begin = first < 0 ? 0 : first;
    end = last > 128 ? 128 : last;
    if (begin >= end) begin = end = 0;
  }

  template <bool Raw>
  void attend_rows(const AttentionState& state, const SplitView<V, T>& split, int64_t row,
                   int64_t end) {
    AttentionTile<V> tile;
    tile.z = state.z;
    while (row < end) {
      int rows = AttentionTiles<V>::kRows;
      while (rows > end - row) rows /= 2;
      for (int r = 0; r < rows; ++r) {
        const int64_t t = task_.row_begin + (row + r) / group_, h = (row + r) % group_;
        tile.q[r] = s_.q + t * s_.q_stride + (task_.kv_head * group_ + h) * c_;
        tile.a[r] = state.a + (row + r) * c_;
      }
      attend_tile<V, T, Raw, AttentionTiles<V>::kRows>(tile, rows, split, s_, state.m + row,
                                                       state.l + row);
      row += rows;
    }
  }

  const AttentionShape& s_;
  const AttentionTask& task_;
  int64_t c_, group_;
};

template <class V, class T>
void attention_task(const AttentionShape& shape, const AttentionTask& task) {
  AttentionWalk<V, T> walk(shape, task);
  switch (task.phase) {
    case AttentionTask::Phase::kWhole:
      return walk.whole();
    case AttentionTask::Phase::kPartial:
      return walk.partial();
    case AttentionTask::Phase::kMerge:
      return walk.merge();
  }
}

}  // namespace sluice::simd
