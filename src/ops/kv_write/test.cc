// kv_write: every kernel row against kv_cache.h's words; untouched slots stay untouched; errors.
#include "ops/kv_write/kv_write.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "ops/kv_write/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;

// A pool of one layer, every element a pattern that no written value has.
struct Pool {
  Pool(DType dtype, int64_t blocks, int64_t g, int64_t c) {
    view.dtype = dtype;
    view.blocks = blocks;
    view.kv_heads = g;
    view.head_size = c;
    const size_t n = static_cast<size_t>(blocks * view.block_elements());
    f32.assign(dtype == DType::kF32 ? n : 0, bits_to_f32(kUntouched));
    b16.assign(dtype == DType::kBF16 ? n : 0, static_cast<uint16_t>(kUntouched >> 16));
    view.data = dtype == DType::kF32 ? static_cast<void*>(f32.data()) : b16.data();
  }
  uint32_t bits(int64_t at) const {
    const size_t i = static_cast<size_t>(at);
    return f32.empty() ? uint32_t{b16[i]} << 16 : f32_to_bits(f32[i]);
  }
  uint32_t expected(float v) const { return f32_to_bits(f32.empty() ? round_to_bf16(v) : v); }
  static constexpr uint32_t kUntouched = 0x7fab0000u;
  KvCacheView view;
  std::vector<float> f32;
  std::vector<uint16_t> b16;
};

using Row = Kernel<KvWriteKernel>;
class KvWriteRow : public ::testing::TestWithParam<Row> {};

TEST_P(KvWriteRow, PutsEveryElementWhereTheCacheSays) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const DType dtype = GetParam().in == "f32" ? DType::kF32 : DType::kBF16;
  Random random(1);
  for (const auto& [g, c] : {std::pair<int64_t, int64_t>{1, 1}, {2, 16}, {3, 40}, {4, 128}}) {
    for (const int threads : {0, 2}) {
      constexpr int64_t kBlocks = 9, kT = 77;
      Pool pool(dtype, kBlocks, g, c);
      // Runs of a sequence, single tokens, and padding rows, all slots distinct.
      std::vector<int32_t> free(kBlocks * kKvBlock), slots(kT);
      std::iota(free.begin(), free.end(), 0);
      for (size_t t = 0; t < kT; ++t) {
        const size_t pick = t < 40 ? 0 : static_cast<size_t>(random.below(std::ssize(free)));
        slots[t] = t % 13 == 5 ? -1 : free[pick];
        if (slots[t] >= 0) free.erase(free.begin() + static_cast<int64_t>(pick));
      }
      Matrix k(kT, g * c, 3, 1), v(kT, g * c, 0, 2);
      k.fill(random, true), v.fill(random, true);
      k.at(0, 0) = NAN, v.at(1, 0) = -INFINITY;
      const Context context(GetParam().isa, threads);
      const Status s =
          context.finish(kv_write(context.exec, {k.view(), v.view(), slots, pool.view}));
      ASSERT_TRUE(s.ok()) << s.message();
      for (int64_t t = 0; t < kT; ++t) {
        const int32_t slot = slots[static_cast<size_t>(t)];
        for (int64_t i = 0; i < g * c && slot >= 0; ++i) {
          const int64_t block = slot / kKvBlock, at = slot % kKvBlock;
          ASSERT_EQ(pool.bits(pool.view.key(block, i / c) + i % c * kKvBlock + at),
                    pool.expected(k.at(t, i)));
          ASSERT_EQ(pool.bits(pool.view.value(block, i / c) + at * c + i % c),
                    pool.expected(v.at(t, i)));
        }
      }
      for (const int32_t slot : free)
        for (int64_t i = 0; i < g * c; ++i) {
          const int64_t block = slot / kKvBlock, at = slot % kKvBlock;
          ASSERT_EQ(pool.bits(pool.view.key(block, i / c) + i % c * kKvBlock + at),
                    Pool::kUntouched);
          ASSERT_EQ(pool.bits(pool.view.value(block, i / c) + at * c + i % c), Pool::kUntouched);
        }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, KvWriteRow,
                         ::testing::ValuesIn(test::all_rows(kv_write_kernels())), test::RowName());

TEST(KvWrite, SaysWhatIsWrong) {
  const Context context(Isa::kReference);
  Matrix k(2, 8), v(2, 8);
  Pool pool(DType::kF32, 2, 2, 4);
  const auto failure = [&](auto change) {
    std::vector<int32_t> slots = {0, 31};
    KvWriteArgs args{k.view(), v.view(), slots, pool.view};
    change(args, slots);
    const Status s = kv_write(context.exec, args);
    return s.ok() ? std::string() : s.message();
  };
  using Slots = std::vector<int32_t>;
  EXPECT_EQ(failure([](KvWriteArgs&, Slots&) {}), "");
  const std::pair<const char*, std::string> cases[] = {
      {"slots: expected below 32 (blocks * B), got 32",
       failure([](KvWriteArgs&, Slots& s) { s[1] = 32; })},
      {"k: expected [T, G*C] = [2, 8], got [1, 8]",
       failure([](KvWriteArgs& a, Slots&) { a.k.rows = 1; })},
      {"v: expected [T, G*C]", failure([](KvWriteArgs& a, Slots&) { a.v.cols = 4; })},
      {"v: row stride", failure([](KvWriteArgs& a, Slots&) { a.v.stride = 7; })},
      {"k: is missing", failure([](KvWriteArgs& a, Slots&) { a.k.data = nullptr; })},
      {"cache: is missing", failure([](KvWriteArgs& a, Slots&) { a.cache.data = nullptr; })},
      {"dtype: expected F32 or BF16",
       failure([](KvWriteArgs& a, Slots&) { a.cache.dtype = DType::kF16; })},
      {"G and C >= 1", failure([](KvWriteArgs& a, Slots&) { a.cache.head_size = 0; })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
}

}  // namespace
}  // namespace sluice
