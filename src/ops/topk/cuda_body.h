// topk's CUDA kernel: one block per row. The K-th largest key is found digit by digit, from the
// top, by histograms; keys are distinct, so exactly K reach it. They are gathered in any order and
// sorted.
#pragma once

#include "device/block.h"
#include "ops/topk/kernels.h"

namespace sluice {

struct TopkBody {
  static constexpr int kThreads = 512;
  static constexpr int kBins = 2048;  // of the widest digit
  static constexpr int kLevels = 5;
  TopkRows a;

  int64_t blocks() const { return a.rows; }
  static constexpr size_t shared_bytes() {
    return kTopkMost * sizeof(uint64_t) + (kBins + kScanScratch + 4) * sizeof(uint32_t);
  }
  // Digits of a key: 11, 11 and 10 bits of the value's order, then two of 10 bits of the index's
  // complement, above which all bits are ones (N <= 2^20).
  SLUICE_HD static int bits(int level) { return level < 2 ? 11 : 10; }
  SLUICE_HD static int shift(int level) {
    return level < 2 ? 53 - 11 * level : level == 2 ? 32 : 10 * (kLevels - 1 - level);
  }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const float* x = a.x + block.index() * a.x_stride;
    uint64_t* keys = block.template shared<uint64_t>();
    uint32_t* bins = block.template shared<uint32_t>(kTopkMost * sizeof(uint64_t));
    uint32_t* scratch = bins + kBins;
    uint32_t* found = scratch + kScanScratch;  // digit, of it wanted, of it there
    uint64_t prefix = 0;
    uint32_t wanted = static_cast<uint32_t>(a.k);
    int level = 0;
    for (;; ++level) {
      if (level == 3) prefix = (prefix << 12) | 0xfffu;
      count_digits(block, x, level, prefix, bins);
      find_digit(block, level, wanted, bins, scratch, found);
      prefix = (prefix << bits(level)) | found[0];
      wanted = found[1];
      if (wanted == found[2] || level + 1 == kLevels) break;
    }
    gather(block, x, prefix, shift(level), keys, found + 3);
    sort(block, keys);
    block.each([&](int t) {
      for (int64_t i = t; i < a.k; i += kThreads) {
        const int32_t id = topk_index(keys[i]);
        a.ids[block.index() * a.k + i] = id;
        if (a.values != nullptr) a.values[block.index() * a.k + i] = x[id];
      }
    });
  }

 private:
  // How often each digit follows the prefix.
  template <class Block>
  SLUICE_HD void count_digits(Block& block, const float* x, int level, uint64_t prefix,
                              uint32_t* bins) const {
    block.each([&](int t) {
      for (int i = t; i < kBins; i += kThreads) bins[i] = 0;
    });
    block.each([&](int t) {
      for (int64_t i = t; i < a.n; i += kThreads) {
        const uint64_t rest = topk_key<void>(x[i], i) >> shift(level);
        if ((rest >> bits(level)) != prefix) continue;
        Block::atomic_add(&bins[rest & ((1u << bits(level)) - 1)], 1u);
      }
    });
  }

  // The digit of the `wanted`-th largest key; a thread looks at neighbouring digits, from the top.
  template <class Block>
  SLUICE_HD void find_digit(Block& block, int level, uint32_t wanted, const uint32_t* bins,
                            uint32_t* scratch, uint32_t* found) const {
    const int each = (1 << bits(level)) / kThreads;
    typename Block::template PerThread<uint32_t> before(block);
    block.each([&](int t) {
      const int top = (1 << bits(level)) - 1 - t * each;
      uint32_t own = 0;
      for (int i = 0; i < each; ++i) own += bins[top - i];
      before[t] = own;
    });
    block.exclusive_scan(before, scratch);
    block.each([&](int t) {
      uint32_t sum = before[t];
      for (int digit = (1 << bits(level)) - 1 - t * each, i = 0; i < each; ++i, --digit) {
        if (sum < wanted && wanted <= sum + bins[digit]) {
          found[0] = static_cast<uint32_t>(digit);
          found[1] = wanted - sum;
          found[2] = bins[digit];
        }
        sum += bins[digit];
      }
    });
  }

  template <class Block>
  SLUICE_HD void gather(Block& block, const float* x, uint64_t least, int shift, uint64_t* keys,
                        uint32_t* count) const {
    block.each([&](int t) {
      for (int64_t i = t; i < kTopkMost; i += kThreads) keys[i] = 0;
      if (t == 0) *count = 0;
    });
    block.each([&](int t) {
      for (int64_t i = t; i < a.n; i += kThreads) {
        const uint64_t key = topk_key<void>(x[i], i);
        if ((key >> shift) >= least) keys[Block::atomic_add(count, 1u)] = key;
      }
    });
  }

  // Descending, by a bitonic network over the next power of two; the keys beyond K are 0.
  template <class Block>
  SLUICE_HD void sort(Block& block, uint64_t* keys) const {
    int n = 1;
    while (n < a.k) n *= 2;
    for (int run = 2; run <= n; run *= 2) {
      for (int half = run / 2; half >= 1; half /= 2) {
        block.each([&](int t) {
          for (int pair = t; pair < n / 2; pair += kThreads) {
            const int low = pair / half * 2 * half + pair % half, high = low + half;
            const bool descending = (low & run) == 0;
            const uint64_t u = keys[low], v = keys[high];
            if ((u < v) != descending) continue;
            keys[low] = v;
            keys[high] = u;
          }
        });
      }
    }
  }
};

}  // namespace sluice
