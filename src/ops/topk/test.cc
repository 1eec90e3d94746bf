// topk: every kernel row against a sort, with ties, NaN, infinities and subnormals; errors.
#include "ops/topk/topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/test_data.h"
#include "ops/topk/kernels.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;

// The definition: value descending, index ascending, NaN last by index.
std::vector<int32_t> sorted_ids(const float* x, int64_t n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [x](int32_t a, int32_t b) {
    if (std::isnan(x[a]) || std::isnan(x[b])) return !std::isnan(x[a]) && std::isnan(x[b]);
    return x[a] > x[b];
  });
  return ids;
}

using Fill = float (*)(Random&, int64_t i, int64_t n);
struct Kind {
  const char* name;
  Fill fill;
};
constexpr float kOdd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-40f, -1e-40f, 2e-40f, 1.0f};
const Kind kKinds[] = {
    {"normal", [](Random& r, int64_t, int64_t) { return r.normal(); }},
    {"ties", [](Random& r, int64_t, int64_t) { return static_cast<float>(r.below(4)); }},
    {"equal", [](Random&, int64_t, int64_t) { return 2.5f; }},
    {"zeros", [](Random& r, int64_t, int64_t) { return r.chance(0.5) ? 0.0f : -0.0f; }},
    {"rising", [](Random&, int64_t i, int64_t) { return static_cast<float>(i); }},
    {"falling", [](Random&, int64_t i, int64_t n) { return static_cast<float>(n - i); }},
    {"odd", [](Random& r, int64_t, int64_t) { return kOdd[r.below(9)]; }},
    {"subnormal",
     [](Random& r, int64_t, int64_t) { return bits_to_f32(static_cast<uint32_t>(r.below(99))); }},
    {"nan", [](Random&, int64_t, int64_t) { return NAN; }},
    {"masked", [](Random& r, int64_t, int64_t) { return r.chance(0.99) ? -INFINITY : r.normal(); }},
};

using Row = Kernel<TopkKernel>;
class TopkRow : public ::testing::TestWithParam<Row> {};

TEST_P(TopkRow, EqualsASort) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context context(GetParam().isa), threaded(GetParam().isa, 2);
  Random random(4);
  for (const Kind& kind : kKinds) {
    for (const int64_t n : {1, 2, 15, 16, 17, 63, 64, 65, 100, 1000, 5003}) {
      Matrix x(2, n, 3, n % 5);
      for (int64_t r = 0; r < 2; ++r)
        for (int64_t i = 0; i < n; ++i) x.at(r, i) = kind.fill(random, i, n);
      for (const int64_t k : {1, 2, 8, 20, 333, 1024}) {
        if (k > n) continue;
        std::vector<int32_t> ids(static_cast<size_t>(2 * k));
        std::vector<float> values(ids.size());
        const Context& c = k % 2 == 0 ? context : threaded;
        const Status status = c.finish(topk(c.exec, {x.view(), k, ids, values}));
        ASSERT_TRUE(status.ok()) << status.message();
        for (int64_t r = 0; r < 2; ++r) {
          const std::vector<int32_t> want = sorted_ids(&x.at(r, 0), n);
          for (int64_t i = 0; i < k; ++i) {
            const size_t at = static_cast<size_t>(r * k + i);
            ASSERT_EQ(ids[at], want[static_cast<size_t>(i)])
                << kind.name << ", N = " << n << ", K = " << k << ", place " << i;
            ASSERT_EQ(f32_to_bits(values[at]), f32_to_bits(x.at(r, ids[at])));
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, TopkRow, ::testing::ValuesIn(test::all_rows(topk_kernels())),
                         test::RowName());

TEST(Topk, SaysWhatIsWrong) {
  const Context context(Isa::kReference);
  Matrix x(2, 8);
  std::vector<int32_t> ids(8);
  std::vector<float> values(8);
  const auto failure = [&](TopkArgs args) {
    const Status s = topk(context.exec, args);
    return s.ok() ? std::string() : s.message();
  };
  EXPECT_EQ(failure({x.view(), 4, ids, values}), "");
  EXPECT_NE(failure({x.view(), 0, ids, values}).find("K: expected 1 to 8, got 0"),
            std::string::npos);
  EXPECT_NE(failure({x.view(), 9, ids, values}).find("got 9"), std::string::npos);
  EXPECT_NE(failure({x.view(), 3, ids, values}).find("T*K = 6"), std::string::npos);
  EXPECT_NE(failure({ConstMatrixF32(x.view().data, 2, 0), 1, ids, values}).find("N: expected"),
            std::string::npos);
  EXPECT_NE(failure({ConstMatrixF32(x.view().data, 2, 8, 4), 4, ids, values}).find("stride"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
