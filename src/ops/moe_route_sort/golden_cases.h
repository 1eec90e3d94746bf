// What the conformance tests share: the tables of tools/goldens/make_route_goldens.py, and its
// inputs from their seeds.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "ops/moe_route/route_runs.h"
#include "weights/safetensors.h"

namespace sluice::test {

// The tensors of a golden file, as vectors.
class Golden {
 public:
  explicit Golden(const char* file) {
    auto source =
        open_safetensors_file(std::string(SLUICE_SOURCE_DIR "/tests/goldens/route/") + file);
    EXPECT_TRUE(source.ok()) << source.status().message();
    if (source.ok()) source_ = std::move(*source);
  }
  std::vector<std::string> names(std::string_view suffix) const {
    std::vector<std::string> out;
    for (const TensorView& v : source_->tensors())
      if (v.name.ends_with(suffix)) out.push_back(v.name.substr(0, v.name.size() - suffix.size()));
    return out;
  }
  template <class T>
  std::vector<T> read(const std::string& name) const {
    for (const TensorView& v : source_->tensors()) {
      if (v.name != name) continue;
      std::vector<T> out(v.bytes / sizeof(T));
      std::memcpy(out.data(), v.data, v.bytes);
      return out;
    }
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }

 private:
  std::unique_ptr<TensorSource> source_;
};

// About normal around 0: the sum of a word's four quarters.
inline int64_t bell(uint64_t word) {
  int64_t sum = -2 * 65535;
  for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>((word >> (16 * i)) & 0xffffu);
  return sum;
}

inline void fill_row(Logits& logits, int64_t row, int32_t seed, DType dtype) {
  Random random(static_cast<uint64_t>(seed));
  for (int64_t c = 0; c < logits.cols(); ++c) {
    const int64_t x = bell(random.next());
    // For bf16, set() rounds.
    logits.set(row, c,
               dtype == DType::kF16 ? static_cast<float>(x >> 7) * 0x1p-7f
                                    : static_cast<float>(x) * 0x1p-14f);
  }
}

struct RouteCase {
  std::string name;
  RouteProblem problem;
  DType dtype = DType::kF32;
  int64_t experts = 0;
  std::vector<int32_t> seeds;
  std::vector<int16_t> ids;
  std::vector<float> weights;
  int64_t rows() const { return static_cast<int64_t>(seeds.size()); }
};

inline RouteCase load_case(const Golden& golden, const std::string& name) {
  const auto n = golden.read<int64_t>(name + ".rule");
  const auto f = golden.read<double>(name + ".floats");
  RouteCase c;
  c.name = name;
  RouteRule& rule = c.problem.rule;
  rule.score = static_cast<RouteScore>(n[0]);
  rule.renormalise = n[1] != 0;
  rule.select = n[2] != 0 ? RouteSelect::kLogit : RouteSelect::kScore;
  rule.groups = {n[3], n[4], n[5] != 0 ? GroupScore::kSumOf2 : GroupScore::kMax};
  rule.shared = n[6];
  rule.shared_weight = SharedWeight::kSigmoid;
  rule.epsilon = static_cast<float>(f[0]);
  rule.routed_scale = static_cast<float>(f[1]);
  c.experts = n[7];
  c.problem.k = n[8];
  if (n[9] >= 0) {
    Random random(static_cast<uint64_t>(n[9]));
    for (int64_t e = 0; e < c.experts; ++e)
      c.problem.bias.push_back(static_cast<float>(bell(random.next())) * 0x1p-19f);
  }
  constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
  c.dtype = kTypes[n[10]];
  c.seeds = golden.read<int32_t>(name + ".seeds");
  c.ids = golden.read<int16_t>(name + ".ids");
  c.weights = golden.read<float>(name + ".weights");
  return c;
}

// T rows, the case's over and over.
inline Logits tiled(const RouteCase& c, int64_t t, int64_t pad) {
  Logits logits(c.dtype, t, c.experts + c.problem.rule.shared, pad);
  for (int64_t r = 0; r < t; ++r)
    fill_row(logits, r, c.seeds[static_cast<size_t>(r % c.rows())], c.dtype);
  return logits;
}

inline void expect_routed(const RouteCase& c, const Routed& got, int64_t t) {
  ASSERT_TRUE(got.status.ok()) << c.name << ": " << got.status.message();
  const int64_t wide = c.problem.wide(), stride = wide + c.problem.out_pad;
  for (int64_t r = 0; r < t; ++r)
    for (int64_t i = 0; i < wide; ++i) {
      const auto at = static_cast<size_t>(r * stride + i);
      const auto want = static_cast<size_t>((r % c.rows()) * wide + i);
      ASSERT_EQ(got.ids[at], c.ids[want]) << c.name << ", row " << r << ", place " << i;
      ASSERT_NEAR(got.weights[at], c.weights[want], 1e-6 * std::fabs(c.weights[want]))
          << c.name << ", row " << r << ", place " << i;
    }
  EXPECT_EQ(got.stats.non_finite_rows, 0);
}

}  // namespace sluice::test
