// sample's CUDA kernels: passes over a batch of rows, a block per chunk of a row, and between them
// one block per row that decides where to look next. What blocks add up are integers, so their
// order does not show; nothing is read by the host until the results are.
//
// Tokens are ordered by (distance, id). The last token that the rules keep, and then the token
// drawn, is where a sum of masses or a count of tokens passes a limit: found by histograms over the
// bits of the distance, as choose.cc does it. Tokens without mass are in no histogram.
#pragma once

#include "base/fp.h"
#include "device/block.h"
#include "ops/sample/draws.h"
#include "ops/sample/mass.h"
#include "ops/topk/kernels.h"
#include "tensor/view.h"

namespace sluice {

// What all passes share: block i takes chunk i % chunks of row i / chunks.
struct SamplePass {
  static constexpr int kThreads = 256;
  SampleDraws a;

  SLUICE_HD int chunks() const { return static_cast<int>((a.n + kSampleChunk - 1) / kSampleChunk); }
  SLUICE_HD const float* raw(int row) const { return a.logits + row * a.stride; }
  // The logits that the rules see.
  SLUICE_HD const float* logits(int row) const {
    const int slot = a.rules[row].adjusted;
    return slot >= 0 ? a.adjusted + slot * a.n : raw(row);
  }
  SLUICE_HD int64_t chunk_end(int64_t begin) const {
    return begin + kSampleChunk < a.n ? begin + kSampleChunk : a.n;
  }
  SLUICE_HD SampleBin* bins(int row, int level) const {
    return level == 0 ? a.coarse + int64_t{row} * kSampleCoarse
                      : a.fine + int64_t{row} * kSampleFine;
  }
  SLUICE_HD static int bin_count(int level) {
    return level == 0 ? kSampleCoarse : level == 1 ? kSampleFine : 512;
  }
  SLUICE_HD static int bin_shift(int level) { return level == 0 ? 19 : level == 1 ? 9 : 0; }
  // Order of arg-max: NaN lowest, subnormals and both zeros equal, then the lowest id.
  SLUICE_HD static uint64_t key(float logit, int64_t id) {
    return topk_key<void>(logit + 0.0f, id);
  }
  SLUICE_HD static float key_value(uint64_t key) {
    const uint32_t order = static_cast<uint32_t>(key >> 32);
    if (order == 0) return -__builtin_inff();  // NaN does not count
    return bits_to_f32((order >> 31) != 0 ? order & 0x7fffffffu : ~order);
  }
  // The greatest key of a block, in every thread's value.
  template <class Block>
  SLUICE_HD static void fold_greatest(Block& block, typename Block::template PerThread<uint64_t>& v,
                                      uint64_t* scratch) {
    const auto greatest = [](uint64_t u, uint64_t w) { return u > w ? u : w; };
    block.warp_fold(v, greatest);
    const int warps = block.threads() / kWarp;
    block.each([&](int t) {
      if (t % kWarp == 0) scratch[t / kWarp] = v[t];
    });
    block.each([&](int t) {
      for (int i = 0; i < warps; ++i) v[t] = greatest(v[t], scratch[i]);
    });
  }
};

// Copies of the rows that bias and penalties change, and clear marks.
struct SampleCopyBody : SamplePass {
  int64_t blocks() const { return a.rows * chunks(); }
  size_t shared_bytes() const { return 0; }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int index = static_cast<int>(block.index()), row = index / chunks();
    const int slot = a.rules[row].adjusted;
    if (slot < 0) return;
    const int64_t begin = index % chunks() * kSampleChunk, end = chunk_end(begin);
    block.each([&](int t) {
      for (int64_t i = begin + t; i < end; i += kThreads) {
        a.adjusted[slot * a.n + i] = raw(row)[i];
        a.marks[slot * a.n + i] = 0;
      }
    });
  }
};

// adjust.h's order, a phase per step: whichever thread marks an id first applies it, once.
struct SampleAdjustBody : SamplePass {
  int64_t blocks() const { return a.rows; }
  size_t shared_bytes() const { return 0; }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const SampleRule& rule = a.rules[block.index()];
    if (rule.adjusted < 0) return;
    float* out = a.adjusted + rule.adjusted * a.n;
    int32_t* marks = a.marks + rule.adjusted * a.n;
    block.each([&](int t) {
      for (int i = rule.bias.begin + t; i < rule.bias.end; i += kThreads) {
        const int32_t id = a.bias_ids[i];
        if (i > rule.bias.begin && a.bias_ids[i - 1] == id) continue;
        for (int j = i; j < rule.bias.end && a.bias_ids[j] == id; ++j)
          out[id] = out[id] + a.biases[j];
      }
      for (int i = rule.output.begin + t; i < rule.output.end; i += kThreads)
        Block::atomic_add(&marks[a.ids[i]], 1);
    });
    if (rule.repetition != 1.0f) {
      block.each([&](int t) {
        repeat(block, t, rule.prompt, rule.repetition, marks, out);
        repeat(block, t, rule.output, rule.repetition, marks, out);
      });
    }
    if (rule.frequency == 0.0f && rule.presence == 0.0f) return;
    block.each([&](int t) {
      for (int i = rule.output.begin + t; i < rule.output.end; i += kThreads) {
        const int32_t id = a.ids[i], mark = Block::atomic_or(&marks[id], kCounted);
        if ((mark & kCounted) == 0)
          out[id] = counted_logit(out[id], rule.frequency, rule.presence, mark & kCount);
      }
    });
  }

 private:
  template <class Block>
  SLUICE_HD void repeat(Block&, int t, SampleList list, float penalty, int32_t* marks,
                        float* out) const {
    for (int i = list.begin + t; i < list.end; i += kThreads) {
      const int32_t id = a.ids[i];
      if ((Block::atomic_or(&marks[id], kRepeated) & kRepeated) == 0)
        out[id] = repeated_logit(out[id], penalty);
    }
  }
};

// Each chunk's arg-max.
struct SampleMaxBody : SamplePass {
  int64_t blocks() const { return a.rows * chunks(); }
  size_t shared_bytes() const { return kWarp * sizeof(uint64_t); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int index = static_cast<int>(block.index()), row = index / chunks();
    const int64_t begin = index % chunks() * kSampleChunk, end = chunk_end(begin);
    const float* x = logits(row);
    typename Block::template PerThread<uint64_t> best(block);
    block.each([&](int t) {
      uint64_t most = 0;
      for (int64_t i = begin + t; i < end; i += kThreads)
        most = key(x[i], i) > most ? key(x[i], i) : most;
      best[t] = most;
    });
    fold_greatest(block, best, block.template shared<uint64_t>());
    block.each([&](int t) {
      if (t == 0) a.best[index] = best[t];
    });
  }
};

// The row's maximum, its arg-max where that is the answer, and empty bins.
struct SampleStartBody : SamplePass {
  int64_t blocks() const { return a.rows; }
  size_t shared_bytes() const { return kWarp * sizeof(uint64_t); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int row = static_cast<int>(block.index());
    typename Block::template PerThread<uint64_t> best(block);
    block.each([&](int t) {
      uint64_t most = 0;
      for (int i = t; i < chunks(); i += kThreads) {
        const uint64_t one = a.best[int64_t{row} * chunks() + i];
        most = one > most ? one : most;
      }
      best[t] = most;
      for (int i = t; i < kSampleCoarse; i += kThreads) bins(row, 0)[i] = {};
      for (int i = t; i < kSampleFine; i += kThreads) bins(row, 1)[i] = {};
    });
    fold_greatest(block, best, block.template shared<uint64_t>());
    block.each([&](int t) {
      if (t != 0) return;
      SampleState s;
      s.max = key_value(best[t]);
      s.token = topk_index(best[t]);
      const float size = s.max < 0 ? -s.max : s.max;
      s.done = a.rules[row].greedy || !(size < __builtin_inff());
      s.kept_count = 1;
      a.states[row] = s;
    });
  }
};

// Masses and counts by distance, of the range that the row searches; Z in the first pass.
struct SampleHistogramBody : SamplePass {
  int level;

  int64_t blocks() const { return a.rows * chunks(); }
  size_t shared_bytes() const {
    return static_cast<size_t>(bin_count(level)) * sizeof(SampleBin) +
           kScanScratch * sizeof(uint64_t);
  }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int index = static_cast<int>(block.index()), row = index / chunks();
    SampleState& s = a.states[row];
    if (s.done || (level > 0 && !s.searching)) return;
    const SampleRule& rule = a.rules[row];
    const float* x = logits(row);
    const float max = s.max;
    const uint32_t low = level > 0 ? s.low : 0;
    const int64_t begin = index % chunks() * kSampleChunk, end = chunk_end(begin);
    const int count = bin_count(level);
    SampleBin* own = block.template shared<SampleBin>();
    typename Block::template PerThread<uint64_t> total(block);
    block.each([&](int t) {
      for (int i = t; i < count; i += kThreads) own[i] = {};
    });
    block.each([&](int t) {
      uint64_t sum = 0;
      for (int64_t i = begin + t; i < end; i += kThreads) {
        const float d = sample_distance(max, x[i], rule.inverse_temperature);
        if (!(d < __builtin_inff())) continue;
        const uint64_t mass = sample_mass(d);
        sum += mass;
        const uint32_t at = (f32_to_bits(d) - low) >> bin_shift(level);
        if (mass == 0 || d > rule.farthest || f32_to_bits(d) < low ||
            at >= static_cast<uint32_t>(count))
          continue;
        Block::atomic_add(&own[at].mass, mass);
        Block::atomic_add(&own[at].count, int64_t{1});
      }
      total[t] = sum;
    });
    block.each([&](int t) {
      for (int i = t; i < count; i += kThreads) {
        if (own[i].count == 0) continue;
        Block::atomic_add(&bins(row, level)[i].mass, own[i].mass);
        Block::atomic_add(&bins(row, level)[i].count, own[i].count);
      }
    });
    if (level > 0) return;
    const uint64_t sum = block.exclusive_scan(
        total, block.template shared<uint64_t>(static_cast<size_t>(count) * sizeof(SampleBin)));
    block.each([&](int t) {
      if (t == 0) Block::atomic_add(&s.total, sum);
    });
  }
};

// Where a row's limit is passed: the first bin at which tokens reach a count or masses exceed a
// sum. draw == false: the last token that top-k and top-p keep; draw: the one at u of what is kept.
struct SampleFindBody : SamplePass {
  int level;
  bool draw;

  int64_t blocks() const { return a.rows; }
  size_t shared_bytes() const { return kScanScratch * sizeof(uint64_t) + sizeof(Found); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int row = static_cast<int>(block.index());
    const SampleState before = a.states[row];
    if (before.done || (level > 0 && !before.searching)) return;
    const Limits limits = limits_of(a.rules[row], before);
    const uint64_t mass0 = level > 0 ? before.mass_before : 0;
    const uint64_t count0 = level > 0 ? before.count_before : 0;
    const int all = bin_count(level), each = (all + kThreads - 1) / kThreads;
    const SampleBin* bin = bins(row, level);
    uint64_t* scratch = block.template shared<uint64_t>();
    Found* found = block.template shared<Found>(kScanScratch * sizeof(uint64_t));
    typename Block::template PerThread<uint64_t> mass(block), count(block);
    block.each([&](int t) {
      uint64_t m = 0, c = 0;
      for (int i = t * each; i < (t + 1) * each && i < all; ++i) {
        m += bin[i].mass;
        c += static_cast<uint64_t>(bin[i].count);
      }
      mass[t] = m;
      count[t] = c;
      if (t == 0) found->bin = -1;
    });
    const uint64_t all_mass = mass0 + block.exclusive_scan(mass, scratch);
    const uint64_t all_count = count0 + block.exclusive_scan(count, scratch);
    block.each([&](int t) {
      uint64_t m = mass0 + mass[t], c = count0 + count[t];
      for (int i = t * each; i < (t + 1) * each && i < all; ++i) {
        const uint64_t next_m = m + bin[i].mass, next_c = c + static_cast<uint64_t>(bin[i].count);
        if (!limits.passed(m, c) && limits.passed(next_m, next_c))
          *found = {m, c, next_m - m, next_c - c, i};
        m = next_m;
        c = next_c;
      }
    });
    block.each([&](int t) {
      if (t == 0) a.states[row] = after(before, *found, limits, all_mass, all_count);
    });
    block.each([&](int t) {
      for (int i = t; i < kSampleFine; i += kThreads) bins(row, 1)[i] = {};
    });
  }

 private:
  struct Limits {
    uint64_t count, mass;
    SLUICE_HD bool passed(uint64_t m, uint64_t c) const { return c >= count || m > mass; }
  };
  struct Found {
    uint64_t mass_before, count_before, mass, count;
    int bin;
  };

  SLUICE_HD Limits limits_of(const SampleRule& rule, const SampleState& s) const {
    if (draw) return {~uint64_t{0}, scaled_mass(s.kept_mass, rule.random24)};
    return {rule.top_k, mass_limit(rule.top_p, s.total)};
  }

  SLUICE_HD SampleState after(SampleState s, const Found& f, const Limits& limits,
                              uint64_t all_mass, uint64_t all_count) const {
    s.searching = f.bin >= 0;
    if (!s.searching) {
      s.kept_mass = all_mass;
      s.kept_count = all_count;
      return s;
    }
    s.low = (level > 0 ? s.low : 0) + (static_cast<uint32_t>(f.bin) << bin_shift(level));
    s.mass_before = f.mass_before;
    s.count_before = f.count_before;
    if (level < 2) return s;
    // Tokens of one distance have equal masses: the rest is a division.
    const uint64_t each = f.mass / f.count;
    uint64_t index = f.count - 1;
    if (limits.count <= f.count_before + f.count) index = limits.count - 1 - f.count_before;
    if (limits.mass < f.mass_before + f.mass) {
      const uint64_t by_mass = (limits.mass - f.mass_before) / each;
      index = by_mass < index ? by_mass : index;
    }
    s.searching = false;
    if (draw) {
      s.distance = bits_to_f32(s.low);
      s.index = index;
    } else {
      s.kept_mass = f.mass_before + (index + 1) * each;
      s.kept_count = f.count_before + index + 1;
    }
    return s;
  }
};

// Tokens of each chunk at the drawn distance.
struct SampleEqualBody : SamplePass {
  int64_t blocks() const { return a.rows * chunks(); }
  size_t shared_bytes() const { return kScanScratch * sizeof(uint32_t); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int index = static_cast<int>(block.index()), row = index / chunks();
    if (a.states[row].done) return;
    const Where at = drawn(row);
    const int64_t begin = index % chunks() * kSampleChunk, end = chunk_end(begin);
    typename Block::template PerThread<uint32_t> count(block);
    block.each([&](int t) {
      uint32_t n = 0;
      for (int64_t i = begin + t; i < end; i += kThreads) n += at.holds(i) ? 1 : 0;
      count[t] = n;
    });
    const uint32_t all = block.exclusive_scan(count, block.template shared<uint32_t>());
    block.each([&](int t) {
      if (t == 0) a.equal[index] = all;
    });
  }
  struct Where {
    const float* x;
    float max, inverse_temperature, distance;
    SLUICE_HD bool holds(int64_t i) const {
      return sample_distance(max, x[i], inverse_temperature) == distance;
    }
  };
  SLUICE_HD Where drawn(int row) const {
    const SampleState& s = a.states[row];
    return {logits(row), s.max, a.rules[row].inverse_temperature, s.distance};
  }
};

// The token: the index-th at its distance, ids ascending; first its chunk, then its place there.
struct SamplePickBody : SampleEqualBody {
  static constexpr int kEach = static_cast<int>(kSampleChunk) / kThreads;

  int64_t blocks() const { return a.rows; }
  size_t shared_bytes() const { return (kScanScratch + 3) * sizeof(uint32_t); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int row = static_cast<int>(block.index());
    const bool done = a.states[row].done;
    uint32_t* scratch = block.template shared<uint32_t>();
    uint32_t* found = scratch + kScanScratch;  // chunk, index there, token
    block.each([&](int t) {
      if (t == 0) found[2] = static_cast<uint32_t>(a.states[row].token);
    });
    if (!done) find_chunk(block, row, scratch, found);
    if (!done) find_token(block, drawn(row), scratch, found);
    block.each([&](int t) {
      if (t != 0) return;
      SampleResult& r = a.results[row];
      r.token = static_cast<int32_t>(found[2]);
      r.logit = raw(row)[r.token];
      r.kept_count = a.states[row].kept_count;
      r.kept_mass = a.states[row].kept_mass;
    });
  }

 private:
  template <class Block>
  SLUICE_HD void find_chunk(Block& block, int row, uint32_t* scratch, uint32_t* found) const {
    const uint32_t* equal = a.equal + int64_t{row} * chunks();
    typename Block::template PerThread<uint32_t> before(block);
    block.each([&](int t) {  // a vocabulary has at most kThreads chunks
      before[t] = t < chunks() ? equal[t] : 0;
      if (t == 0) found[0] = found[1] = 0;
    });
    block.exclusive_scan(before, scratch);
    block.each([&](int t) {
      const uint32_t wanted = static_cast<uint32_t>(a.states[row].index);
      if (t >= chunks() || before[t] > wanted || wanted >= before[t] + equal[t]) return;
      found[0] = static_cast<uint32_t>(t);
      found[1] = wanted - before[t];
    });
  }

  template <class Block>
  SLUICE_HD void find_token(Block& block, const Where& at, uint32_t* scratch,
                            uint32_t* found) const {
    const int begin = static_cast<int>(found[0] * kSampleChunk);
    const int end = static_cast<int>(chunk_end(begin));
    typename Block::template PerThread<uint32_t> before(block);
    block.each([&](int t) {
      const int from = begin + t * kEach, to = from + kEach < end ? from + kEach : end;
      uint32_t n = 0;
      for (int i = from; i < to; ++i) n += at.holds(i) ? 1 : 0;
      before[t] = n;
    });
    block.exclusive_scan(before, scratch);
    block.each([&](int t) {
      const int from = begin + t * kEach, to = from + kEach < end ? from + kEach : end;
      uint32_t n = before[t];
      for (int i = from; i < to; ++i)
        if (at.holds(i) && n++ == found[1]) found[2] = static_cast<uint32_t>(i);
    });
  }
};

// max and exp_sum of the model's own logits: 32 partials that one warp adds in order, exponentials
// computed by all, a tile at a time.
struct SampleExpSumBody : SamplePass {
  static constexpr int kTile = 8192;

  int64_t blocks() const { return a.rows; }
  size_t shared_bytes() const { return kTile * sizeof(float) + kWarp * sizeof(uint64_t); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int row = static_cast<int>(block.index());
    if (!a.rules[row].logprobs) return;
    const float* x = raw(row);
    float* tile = block.template shared<float>();
    typename Block::template PerThread<uint64_t> best(block);
    typename Block::template PerThread<float> partial(block);
    block.each([&](int t) {
      uint64_t most = 0;
      for (int64_t i = t; i < a.n; i += kThreads) most = key(x[i], i) > most ? key(x[i], i) : most;
      best[t] = most;
      partial[t] = 0.0f;
    });
    fold_greatest(block, best, block.template shared<uint64_t>(kTile * sizeof(float)));
    for (int64_t begin = 0; begin < a.n; begin += kTile) {
      const int count = begin + kTile < a.n ? kTile : static_cast<int>(a.n - begin);
      block.each([&](int t) {
        const float max = key_value(best[t]);
        for (int i = t; i < count; i += kThreads) {
          const float e = scalar::exp(x[begin + i] - max);
          tile[i] = e == e ? e : 0.0f;
        }
      });
      block.each([&](int t) {
        float sum = partial[t];
        for (int i = t; t < kWarp && i < count; i += kWarp) sum += tile[i];
        partial[t] = sum;
      });
    }
    block.warp_sum(partial);
    block.each([&](int t) {
      if (t != 0) return;
      a.results[row].max = key_value(best[t]);
      a.results[row].exp_sum = partial[t];
    });
  }
};

// The launches of one batch, in order.
template <class Launch>
void sample_steps(const SampleDraws& a, const Launch& run) {
  if (a.adjusts) {
    run(SampleCopyBody{{a}});
    run(SampleAdjustBody{{a}});
  }
  run(SampleMaxBody{{a}});
  run(SampleStartBody{{a}});
  const auto refine = [&](bool draw) {
    for (const int level : {1, 2}) {
      run(SampleHistogramBody{{a}, level});
      run(SampleFindBody{{a}, level, draw});
    }
  };
  if (a.draws) {
    run(SampleHistogramBody{{a}, 0});
    run(SampleFindBody{{a}, 0, false});
    if (a.bounded) refine(false);
    run(SampleFindBody{{a}, 0, true});
    refine(true);
    run(SampleEqualBody{{a}});
  }
  run(SamplePickBody{{{a}}});
  if (a.logprobs) run(SampleExpSumBody{{a}});
}

}  // namespace sluice
