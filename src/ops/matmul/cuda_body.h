// The CUDA kernels of matmul and grouped_matmul: a block multiplies one tile of rows of one expert
// by a few neighbouring panels, streaming both through shared memory in chunks of k. The loads of
// the next chunk are on their way while the block multiplies the one before.
//
// An output's chain of FMAs is never split or reordered. f32_fma gives a chain to one thread;
// bf16_tile's steps of 32 k are chains of their own, which different threads may take.
//
// FewRows (decode) spreads a panel's columns and, for bf16_tile, its steps over the threads; each
// weight is read once for up to eight rows. ManyRows (prefill) is a 64 x 64 tile, 4 x 4 outputs per
// thread. They give the same bits; which one runs depends on the most rows there can be.
#pragma once

#include "ops/matmul/cuda_panels.h"

namespace sluice::cuda {

template <WeightFormat format, Arith arith, int kPanels>
struct FewRowsBody {
  // A thread for each output of the tile; bf16_tile's steps take turns over the rows' threads.
  static constexpr int kRows = 8, kColumns = 16 * kPanels;
  static constexpr int kThreads = kRows * kColumns;
  // A chunk: up to 8 KiB of each panel, less where more would not fit the registers on its way.
  // Steps are 64 bytes farther apart in shared memory than in the panel where two of them would
  // meet in one bank, and so are panels.
  static constexpr int kSteps = format == WeightFormat::kF32                    ? 4
                                : format == WeightFormat::kBF16 && kPanels == 2 ? 6
                                                                                : 8;
  static constexpr int kStepBytes = PanelStep<format>::kBytes;
  static constexpr int kStepRoom = kStepBytes + (format == WeightFormat::kMXFP4 ? 0 : 64);
  static constexpr int kPanelRoom = kSteps * kStepRoom + (kPanels > 1 ? 64 : 0);
  static constexpr int kChunkK = kSteps * kStepK;
  static constexpr int kXStep = kStepK + 2;  // floats
  static constexpr int kWords = kPanels * kSteps * kStepBytes / 16;
  static constexpr int kWordLoads = (kWords + kThreads - 1) / kThreads;
  static constexpr int kXLoads = kRows * kChunkK / kThreads;

  static constexpr int kX = kHeader;  // byte offsets in shared memory
  static constexpr int kW = kX + kRows * kSteps * kXStep * 4;
  static constexpr int kSums = kW + kPanels * kPanelRoom;  // [kSteps][kRows][kColumns]
  static constexpr int kShared =
      kSums + (arith == Arith::kBf16Tile ? kSteps : 1) * kRows * kColumns * 4;

  GroupedProduct a;

  static int64_t blocks(const GroupedProduct& a) { return blocks_of<kRows, kPanels>(a); }

  struct Chunk {
    Words w[kWordLoads];
    float x[kXLoads];
  };

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const Operands o = operands<kRows, kPanels>(block, a);
    if (o.tile.rows == 0) return;
    typename Block::template PerThread<Chunk> chunk(block);
    typename Block::template PerThread<float> sum(block);
    auto* row_at = block.template shared<int64_t>(kHeader - 8 * kRows);
    auto* x = block.template shared<float>(kX);
    auto* w = block.template shared<std::byte>(kW);
    auto* partial = block.template shared<float>(kSums);
    block.each([&](int t) {
      if (t < kRows) row_at[t] = row_offset(a, o.tile, t);
    });
    block.each([&](int t) { fetch(o, row_at, 0, t, chunk[t]); });
    for (int64_t first = 0; first < o.steps; first += kSteps) {
      block.each([&](int t) { put(t, chunk[t], x, w); });
      block.each([&](int t) {
        if (first + kSteps < o.steps) fetch(o, row_at, first + kSteps, t, chunk[t]);
        if constexpr (arith == Arith::kBf16Tile)
          step_sums(o, first, t, x, w, partial);
        else
          sum[t] = add_products(o, first, t, x, w, sum[t]);
      });
      if constexpr (arith == Arith::kBf16Tile)
        block.each([&](int t) { sum[t] = add_steps(o, first, t, partial, sum[t]); });
    }
    block.each([&](int t) { partial[t] = sum[t]; });
    block.each([&](int t) {
      store_outputs<kColumns>(a, o.tile, o.panel, partial, kColumns, t, kThreads);
    });
  }

 private:
  // The chunk from step `first` on, from memory; zeros outside of panels and rows.
  SLUICE_HD void fetch(const Operands& o, const int64_t* row_at, int64_t first, int t,
                       Chunk& c) const {
    SLUICE_UNROLL
    for (int i = 0; i < kWordLoads; ++i) {
      const int j = t + i * kThreads, panel = j / (kSteps * kStepBytes / 16);
      const int64_t at = first * kStepBytes + j % (kSteps * kStepBytes / 16) * 16;
      const bool inside =
          j < kWords && o.panel + panel < a.panel_count && at < static_cast<int64_t>(a.panel_bytes);
      c.w[i] = inside ? load_as<Words>(o.panels +
                                       (o.panel + panel) * static_cast<int64_t>(a.panel_bytes) + at)
                      : Words{};
    }
    SLUICE_UNROLL
    for (int i = 0; i < kXLoads; ++i) {
      const int row = (t + i * kThreads) / kChunkK;
      const int64_t k = first * kStepK + (t + i * kThreads) % kChunkK;
      c.x[i] = row < o.tile.rows && k < a.k ? rounded<arith>(a.x[row_at[row] + k]) : 0.0f;
    }
  }
  SLUICE_HD void put(int t, const Chunk& c, float* x, std::byte* w) const {
    SLUICE_UNROLL
    for (int i = 0; i < kWordLoads; ++i) {
      const int j = t + i * kThreads, panel = j / (kSteps * kStepBytes / 16);
      const int at = j % (kSteps * kStepBytes / 16) * 16;
      if (j < kWords)
        store_as(w + panel * kPanelRoom + at / kStepBytes * kStepRoom + at % kStepBytes, c.w[i]);
    }
    SLUICE_UNROLL
    for (int i = 0; i < kXLoads; ++i) {
      const int at = t + i * kThreads;
      x[at / kStepK * kXStep + at % kStepK] = c.x[i];
    }
  }
  SLUICE_HD static const std::byte* step_of(const std::byte* w, int t, int step) {
    return w + t % kColumns / 16 * kPanelRoom + step * kStepRoom;
  }

  // bf16_tile: e + o of this thread's column for every row, steps t / kColumns, + 8 ...; four rows
  // at a time, because their chains share the registers with the chunk that is on its way.
  SLUICE_HD void step_sums(const Operands& o, int64_t first, int t, const float* x,
                           const std::byte* w, float* partial) const {
    constexpr int kAtOnce = 4;
    for (int s = t / kColumns; s < kSteps && first + s < o.steps; s += kRows)
      for (int row = 0; row < o.tile.rows; row += kAtOnce) {
        float e[kAtOnce] = {}, d[kAtOnce] = {};
        SLUICE_UNROLL_BY(2)
        for (int j = 0; j < kStepK / 2; ++j) {
          const Pair v = PanelStep<format>::pair(step_of(w, t, s), j, t % 16);
          SLUICE_UNROLL
          for (int r = 0; r < kAtOnce; ++r) {
            if (row + r >= o.tile.rows) continue;
            const Pair xs = load_as<Pair>(x + ((row + r) * kSteps + s) * kXStep + 2 * j);
            e[r] = scalar::fma(xs.even, v.even, e[r]);
            d[r] = scalar::fma(xs.odd, v.odd, d[r]);
          }
        }
        SLUICE_UNROLL
        for (int r = 0; r < kAtOnce; ++r)
          partial[(s * kRows + row + r) * kColumns + t % kColumns] = e[r] + d[r];
      }
  }
  SLUICE_HD float add_steps(const Operands& o, int64_t first, int t, const float* partial,
                            float sum) const {
    if (t / kColumns >= o.tile.rows) return sum;
    for (int s = 0; s < kSteps && first + s < o.steps; ++s) sum = sum + partial[s * kThreads + t];
    return sum;
  }
  // f32_fma: the chain of row t / kColumns goes on.
  SLUICE_HD float add_products(const Operands& o, int64_t first, int t, const float* x,
                               const std::byte* w, float sum) const {
    const int row = t / kColumns;
    if (row >= o.tile.rows) return sum;
    for (int s = 0; s < kSteps && first + s < o.steps; ++s) {
      const int64_t rest = a.k - (first + s) * kStepK;
      const int left = rest < kStepK ? static_cast<int>(rest) : kStepK;
      SLUICE_UNROLL_BY(8)
      for (int j = 0; j < kStepK / 2; ++j) {
        const Pair v = PanelStep<format>::pair(step_of(w, t, s), j, t % 16);
        const Pair xs = load_as<Pair>(x + (row * kSteps + s) * kXStep + 2 * j);
        // Nothing past K takes part: 0 * 0 would turn a sum of -0 into +0.
        if (2 * j < left) sum = scalar::fma(xs.even, v.even, sum);
        if (2 * j + 1 < left) sum = scalar::fma(xs.odd, v.odd, sum);
      }
    }
    return sum;
  }
};

template <WeightFormat format, Arith arith>
struct ManyRowsBody {
  static constexpr int kThreads = 256;
  static constexpr int kRows = 64, kPanels = 4, kColumns = 64;
  static constexpr int kStride = kColumns + 4;  // floats; rows of four stay aligned
  static constexpr int kXLoads = kRows * kStepK / kThreads;

  static constexpr int kRowAt = kHeader;
  static constexpr int kX = kRowAt + kRows * 8;              // [k][row]
  static constexpr int kW = kX + kStepK * kStride * 4;       // [k][column]
  static constexpr int kShared = kW + kStepK * kStride * 4;  // at the end all of it: [row][column]

  GroupedProduct a;

  static int64_t blocks(const GroupedProduct& a) { return blocks_of<kRows, kPanels>(a); }

  struct Chunk {
    StoredPairs<format> w;
    float x[kXLoads];
  };
  struct Sums {
    float v[4][4];
  };

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const Operands o = operands<kRows, kPanels>(block, a);
    if (o.tile.rows == 0) return;
    typename Block::template PerThread<Chunk> chunk(block);
    typename Block::template PerThread<Sums> sums(block);
    auto* row_at = block.template shared<int64_t>(kRowAt);
    auto* x = block.template shared<float>(kX);
    auto* w = block.template shared<float>(kW);
    block.each([&](int t) {
      if (t < kRows) row_at[t] = row_offset(a, o.tile, t);
    });
    block.each([&](int t) { fetch(o, row_at, 0, t, chunk[t]); });
    for (int64_t s = 0; s < o.steps; ++s) {
      block.each([&](int t) { put(t, chunk[t], x, w); });
      block.each([&](int t) {
        if (s + 1 < o.steps) fetch(o, row_at, s + 1, t, chunk[t]);
        if (t / 16 * 4 < o.tile.rows) multiply(a.k - s * kStepK, t, x, w, sums[t]);
      });
    }
    block.each([&](int t) {
      SLUICE_UNROLL
      for (int r = 0; r < 4; ++r) SLUICE_UNROLL
      for (int c = 0; c < 4; ++c) x[(t / 16 * 4 + r) * kStride + t % 16 * 4 + c] = sums[t].v[r][c];
    });
    block.each(
        [&](int t) { store_outputs<kColumns>(a, o.tile, o.panel, x, kStride, t, kThreads); });
  }

 private:
  // Of a step, thread t takes two k of four columns, and k t % 8, + 8 ... of rows t / 8, + 32.
  SLUICE_HD void fetch(const Operands& o, const int64_t* row_at, int64_t s, int t, Chunk& c) const {
    const int64_t panel = o.panel + t / 64, left = a.k - s * kStepK;
    c.w = StoredPairs<format>{};
    if (panel < a.panel_count)
      c.w.read(
          o.panels + panel * static_cast<int64_t>(a.panel_bytes) + s * PanelStep<format>::kBytes,
          t % 64 / 4, t % 4 * 4, left < kStepK ? static_cast<int>(left) : kStepK);
    SLUICE_UNROLL
    for (int i = 0; i < kXLoads; ++i) {
      const int row = t / 8 + i / 4 * 32, k = t % 8 + i % 4 * 8;
      c.x[i] =
          row < o.tile.rows && k < left ? rounded<arith>(a.x[row_at[row] + s * kStepK + k]) : 0.0f;
    }
  }
  SLUICE_HD void put(int t, const Chunk& c, float* x, float* w) const {
    Quad even, odd;
    SLUICE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const Pair v = c.w.pair(i);
      even.v[i] = v.even, odd.v[i] = v.odd;
    }
    float* at = w + t % 64 / 4 * 2 * kStride + t / 64 * 16 + t % 4 * 4;
    store_as(at, even);
    store_as(at + kStride, odd);
    SLUICE_UNROLL
    for (int i = 0; i < kXLoads; ++i)
      x[(t % 8 + i % 4 * 8) * kStride + t / 8 + i / 4 * 32] = c.x[i];
  }
  SLUICE_HD static void add_outer(const float* x, const float* w, float (&sums)[4][4]) {
    const Quad xs = load_as<Quad>(x), ws = load_as<Quad>(w);
    SLUICE_UNROLL
    for (int r = 0; r < 4; ++r) SLUICE_UNROLL
    for (int c = 0; c < 4; ++c) sums[r][c] = scalar::fma(xs.v[r], ws.v[c], sums[r][c]);
  }
  SLUICE_HD static void multiply(int64_t left, int t, const float* x, const float* w, Sums& sums) {
    x += t / 16 * 4;
    w += t % 16 * 4;
    if constexpr (arith == Arith::kBf16Tile) {
      Sums e{}, d{};
      SLUICE_UNROLL_BY(4)
      for (int k = 0; k < kStepK; k += 2) {
        add_outer(x + k * kStride, w + k * kStride, e.v);
        add_outer(x + (k + 1) * kStride, w + (k + 1) * kStride, d.v);
      }
      SLUICE_UNROLL
      for (int r = 0; r < 4; ++r) SLUICE_UNROLL
      for (int c = 0; c < 4; ++c) sums.v[r][c] = sums.v[r][c] + (e.v[r][c] + d.v[r][c]);
    } else {
      const int ks = left < kStepK ? static_cast<int>(left) : kStepK;
      SLUICE_UNROLL_BY(4)
      for (int k = 0; k < ks; ++k) add_outer(x + k * kStride, w + k * kStride, sums.v);
    }
  }
};

// Runs what a product needs: run(body, shared bytes).
template <WeightFormat format, Arith arith, class Run>
void with_body(const GroupedProduct& a, const Run& run) {
  if (!has_few_rows(a))
    run(ManyRowsBody<format, arith>{a}, ManyRowsBody<format, arith>::kShared);
  else if (a.glu)
    run(FewRowsBody<format, arith, 2>{a}, FewRowsBody<format, arith, 2>::kShared);
  else
    run(FewRowsBody<format, arith, 1>{a}, FewRowsBody<format, arith, 1>::kShared);
}

}  // namespace sluice::cuda
