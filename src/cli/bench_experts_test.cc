// `sluice bench experts`: every format runs, its numbers agree with each other, bad input is a
// sentence. Times are not looked at.
#include "cli/bench_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/synthetic_experts.h"
#include "ops/matmul/pack.h"

namespace sluice {
namespace {

BenchExpertsOptions small(const std::string& weights) {
  BenchExpertsOptions o;
  o.shape = "64,32,6,2";
  o.weights = weights;
  o.tokens = {1, 5};
  o.rotate_gb = 0.0001;
  o.seconds = 0;
  o.threads = 2;
  o.json = true;
  return o;
}

nlohmann::json run(const BenchExpertsOptions& options) {
  std::ostringstream out, err;
  Console console{out, err};
  const Status status = run_bench_experts(options, console);
  EXPECT_TRUE(status.ok()) << status.message();
  return nlohmann::json::parse(out.str(), nullptr, false);
}

std::string failure(const BenchExpertsOptions& options) {
  std::ostringstream out, err;
  Console console{out, err};
  return run_bench_experts(options, console).message();
}

TEST(BenchExperts, EveryFormatRunsAndTheNumbersAgree) {
  for (const SyntheticFormat& format : synthetic_formats()) {
    SCOPED_TRACE(format.name);
    const nlohmann::json facts = run(small(std::string(format.name)));
    ASSERT_TRUE(facts.is_object());
    EXPECT_EQ(facts["weights"], format.name);
    EXPECT_EQ(facts["command"],
              "sluice bench experts --shape 64,32,6,2 --weights " + std::string(format.name) +
                  " --tokens 1,5 --routing uniform --rotate 0.0001 --time 0 --seed 1 --threads 2 "
                  "--json");
    EXPECT_EQ(facts["arith"], arith_name(format.arith));
    EXPECT_NE(facts["kernel"], "none");
    EXPECT_EQ(facts["threads"], 2);
    EXPECT_GE(facts["copies"], 1);
    ASSERT_EQ(facts["rows"].size(), 2u);
    const nlohmann::json& one = facts["rows"][0];
    EXPECT_EQ(one["tokens"], 1);
    EXPECT_EQ(one["experts"], 2.0);
    EXPECT_GE(one["calls"], 7);
    const double us = one["us"], operations = 2.0 * 2 * 3 * 64 * 32;
    EXPECT_LE(one["best_us"], one["us"]);
    EXPECT_NEAR(one["gops"], operations / us / 1e3, 1e-6 * operations / us);
    EXPECT_NEAR(one["gb_per_second"], 2.0 * facts["expert_bytes"].get<double>() / us / 1e3, 1e-3);
    const double experts = facts["rows"][1]["experts"];
    EXPECT_GE(experts, 2.0);
    EXPECT_LE(experts, 6.0);
  }
}

// --prefused no: weights can be packed in the step, which says so in both forms of output.
TEST(BenchExperts, TimesStepsThatPackTheirWeights) {
  for (const char* format : {"f32", "mxfp4", "int4", "q4_k"}) {
    SCOPED_TRACE(format);
    BenchExpertsOptions o = small(format);
    o.prefused = false;
    const nlohmann::json facts = run(o);
    EXPECT_NE(facts["command"].get<std::string>().find("--prefused no"), std::string::npos);
    for (const nlohmann::json& row : facts["rows"])
      EXPECT_NEAR(row["raw_ratio"], row["raw_us"].get<double>() / row["us"].get<double>(), 1e-6);
  }
  EXPECT_FALSE(run(small("bf16"))["rows"][0].contains("raw_us"));
}

TEST(BenchExperts, PrintsATable) {
  BenchExpertsOptions o = small("bf16");
  o.json = false;
  std::ostringstream out, err;
  Console console{out, err};
  ASSERT_TRUE(run_bench_experts(o, console).ok());
  for (const char* word : {"tokens", "GOP/s", "roof", "matmul_bf16_bf16_", "D 64 I 32 E 6 K 2"})
    EXPECT_NE(out.str().find(word), std::string::npos) << word << "\n" << out.str();
}

TEST(BenchExperts, RefusesWhatItCannotDo) {
  const auto refused = [](BenchExpertsOptions o, std::string_view word) {
    const std::string said = failure(o);
    EXPECT_NE(said.find(word), std::string::npos) << said;
  };
  BenchExpertsOptions o = small("fp7");
  refused(o, "weights: expected one of f32, bf16");
  for (const char* shape : {"", "64", "64,32,6", "64,32,6,2,1", "64,32,6,x", "0,32,6,2", "gpt"}) {
    o = small("bf16");
    o.shape = shape;
    refused(o, "expected a known name or D,I,E,K");
  }
  o = small("bf16");
  o.shape = "64,32,6,7";
  refused(o, "K: expected at most E = 6, got 7");
  o.shape = "64,32,4097,7";
  refused(o, "E: expected at most 4096, got 4097");
  o.shape = "64,32,128,65";
  refused(o, "K: expected at most 64, got 65");
  o = small("mxfp4");
  o.shape = "64,40,6,2";
  refused(o, "K: expected a multiple of 32, got 40");
  o = small("f32");
  for (const char* shape : {"100000,1000,4096,1", "1000000,1000000,4,2"}) {
    o.shape = shape;
    refused(o, "half of this machine's memory");
  }
}

TEST(SyntheticExperts, KnowsThePublishedShapes) {
  for (const ExpertShape& s : expert_shapes()) {
    const Result<ExpertShape> parsed = parse_expert_shape(std::string(s.name));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(parsed->d, s.d);
  }
  const ExpertShape custom = parse_expert_shape("2048,768,128,8").value();
  EXPECT_EQ(custom.width, 768);
  EXPECT_EQ(custom.k, 8);
}

TEST(SyntheticExperts, RoutingGivesDistinctExpertsPerToken) {
  const ExpertShape s = parse_expert_shape("32,32,16,4").value();
  std::vector<int64_t> zipf(16), uniform(16);
  for (const ExpertRouting routing :
       {ExpertRouting::kUniform, ExpertRouting::kZipf, ExpertRouting::kOne}) {
    const std::vector<int32_t> ids = draw_experts(s, routing, 400, 7);
    ASSERT_EQ(ids.size(), 1600u);
    EXPECT_EQ(ids, draw_experts(s, routing, 400, 7));
    for (size_t t = 0; t < 400; ++t) {
      const std::set<int32_t> chosen(ids.begin() + 4 * t, ids.begin() + 4 * t + 4);
      ASSERT_EQ(chosen.size(), 4u);
      ASSERT_GE(*chosen.begin(), 0);
      ASSERT_LT(*chosen.rbegin(), 16);
      const std::set<int32_t> first(ids.begin(), ids.begin() + 4);
      ASSERT_TRUE(routing != ExpertRouting::kOne || chosen == first);
    }
    for (const int32_t id : ids) {
      if (routing == ExpertRouting::kZipf) ++zipf[static_cast<size_t>(id)];
      if (routing == ExpertRouting::kUniform) ++uniform[static_cast<size_t>(id)];
    }
  }
  const auto spread = [](const std::vector<int64_t>& counts) {
    const auto [low, high] = std::minmax_element(counts.begin(), counts.end());
    return *high - *low;
  };
  EXPECT_GT(spread(zipf), 2 * spread(uniform));
}

TEST(SyntheticExperts, Mxfp4IsTheNearestCode) {
  const std::unique_ptr<Device> device = make_cpu_device();
  std::vector<float> w(32 * 16, 0.0f);
  const float values[] = {6.0f, -6.0f, 0.24f, 0.26f, 1.3f, -2.4f, 5.1f};
  std::copy(std::begin(values), std::end(values), w.begin());
  const SyntheticFormat* mxfp4 = nullptr;
  for (const SyntheticFormat& f : synthetic_formats())
    if (f.format == WeightFormat::kMXFP4) mxfp4 = &f;
  ASSERT_NE(mxfp4, nullptr);
  const PackedMatrix packed = mxfp4->pack(*device, w.data(), 16, 32).value();
  const float want[] = {6.0f, -6.0f, 0.0f, 0.5f, 1.5f, -2.0f, 6.0f};
  for (int64_t k = 0; k < 7; ++k) EXPECT_EQ(packed_element(packed, 0, k), want[k]) << k;
}

}  // namespace
}  // namespace sluice
