// rope's CUDA kernels: a thread per entry of the table of angles; a thread per pair of a row.
#pragma once

#include "device/block.h"
#include "ops/rope/angle.h"
#include "ops/rope/kernels.h"
#include "ops/rope/turn.h"
#include "tensor/view.h"

namespace sluice {

// The frequencies are host memory and travel in the launch, so many at a time.
struct RopeAnglesBody {
  static constexpr int kThreads = 128;
  static constexpr int64_t kFrequencies = 256;
  const int32_t* positions;
  float* table;
  int64_t rows, half, begin, count;  // this launch: entries [begin, begin + count) of each row
  double factor;
  double inv_freq[kFrequencies];

  RopeAnglesBody(const RopeRows& a, int64_t first)
      : positions(a.positions),
        table(a.table),
        rows(a.rows),
        half(a.half),
        begin(first),
        count(a.half - first < kFrequencies ? a.half - first : kFrequencies),
        factor(a.factor),
        inv_freq{} {
    for (int64_t i = 0; i < count; ++i) inv_freq[i] = a.inv_freq[first + i];
  }
  int64_t blocks() const { return ceil_div(rows * count, kThreads); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    block.each([&](int t) {
      const int64_t at = block.index() * kThreads + t;
      if (at >= rows * count) return;
      const int64_t row = at / count, i = at % count;
      rope_angle(positions[row], inv_freq[i], factor, table + (row * half + begin + i) * 2);
    });
  }
};

struct RopeBody {
  static constexpr int kThreads = 256;
  static constexpr int64_t kPairs = 1024;  // of one block
  RopeRows a;

  SLUICE_HD static int64_t runs(const RopeRows& a) { return ceil_div(a.heads * a.half, kPairs); }
  static int64_t blocks(const RopeRows& a) { return a.rows * runs(a); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int64_t row = block.index() / runs(a), begin = block.index() % runs(a) * kPairs;
    const int64_t pairs = a.heads * a.half, end = begin + kPairs < pairs ? begin + kPairs : pairs;
    const float* cos_sin = a.cos_sin + row * a.half * 2;
    block.each([&](int t) {
      for (int64_t p = begin + t; p < end; p += kThreads) {
        const int64_t i = p % a.half;
        float* x = a.x + row * a.stride + p / a.half * 2 * a.half + i;
        rope_turn(cos_sin[2 * i], cos_sin[2 * i + 1], x[0], x[a.half]);
      }
    });
  }
};

}  // namespace sluice
