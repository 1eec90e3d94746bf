// Packed stores of whole models: what is loaded from one is what the directory would have given.
#include <filesystem>

#include "base/fp.h"
#include "model/checkpoint_files.h"
#include "model/pack_store.h"
#include "ops/matmul/pack.h"
#include "weights/checksum.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

Result<PackReport> pack(const std::string& model, const std::string& store,
                        const PackOptions& options = {}) {
  const auto rt = runtime_with(2);
  return pack_store(*rt, model, store, options);
}

std::string_view bytes_of(const PackedMatrix& m) {
  return {reinterpret_cast<const char*>(m.data), m.bytes};
}
// Squared error of the weights, and their squares.
std::pair<double, double> loss_of(const PackedMatrix& got, const PackedMatrix& exact) {
  double error = 0, signal = 0;
  for (int64_t n = 0; n < got.n; ++n)
    for (int64_t k = 0; k < got.k; ++k) {
      const double r = packed_element(exact, n, k), d = packed_element(got, n, k) - r;
      error += d * d;
      signal += r * r;
    }
  return {error, signal};
}
void expect_same(const PackedMatrix& a, const PackedMatrix& b) {
  ASSERT_EQ(a.empty(), b.empty());
  EXPECT_EQ(a.format, b.format);
  EXPECT_EQ(a.layout, b.layout);
  EXPECT_EQ(a.n, b.n);
  EXPECT_EQ(a.k, b.k);
  EXPECT_TRUE(bytes_of(a) == bytes_of(b));
}
void expect_same(F32Vector& a, F32Vector& b) {
  ASSERT_EQ(a.size(), b.size());
  if (a.empty()) return;  // memcmp takes no null pointer
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * 4), 0);
}

void expect_same(Model& a, Model& b) {
  EXPECT_EQ(a.spec.embed_scale, b.spec.embed_scale);
  EXPECT_EQ(a.generation.eos_ids, b.generation.eos_ids);
  expect_same(a.embedding, b.embedding);
  expect_same(a.head, b.head);
  expect_same(a.final_norm, b.final_norm);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t l = 0; l < a.layers.size(); ++l) {
    LayerWeights &x = a.layers[l], &y = b.layers[l];
    EXPECT_EQ(x.layer_scalar, y.layer_scalar);
    expect_same(x.input_norm, y.input_norm);
    expect_same(x.post_feedforward_norm_2, y.post_feedforward_norm_2);
    for (PackedMatrix AttentionWeights::*m :
         {&AttentionWeights::q, &AttentionWeights::k, &AttentionWeights::v, &AttentionWeights::o})
      expect_same(x.attention.*m, y.attention.*m);
    expect_same(x.attention.q_bias, y.attention.q_bias);
    expect_same(x.attention.q_norm, y.attention.q_norm);
    expect_same(x.attention.sinks, y.attention.sinks);
    expect_same(x.dense.gate_up, y.dense.gate_up);
    expect_same(x.dense.down, y.dense.down);
    expect_same(x.moe.router, y.moe.router);
    expect_same(x.moe.router_bias, y.moe.router_bias);
    expect_same(x.moe.router_norm, y.moe.router_norm);
    expect_same(x.moe.per_expert_scale, y.moe.per_expert_scale);
    ASSERT_EQ(x.moe.gate_up.size(), y.moe.gate_up.size());
    for (size_t e = 0; e < x.moe.gate_up.size(); ++e) {
      expect_same(x.moe.gate_up[e], y.moe.gate_up[e]);
      expect_same(x.moe.down[e], y.moe.down[e]);
    }
    ASSERT_EQ(x.moe.gate_up_bias.size(), y.moe.gate_up_bias.size());
    for (size_t e = 0; e < x.moe.gate_up_bias.size(); ++e) {
      expect_same(x.moe.gate_up_bias[e], y.moe.gate_up_bias[e]);
      expect_same(x.moe.down_bias[e], y.moe.down_bias[e]);
    }
  }
}

// What ggml's rule for Q4_0 loses: 32 weights of a row share d = m / -8, m the first of the largest
// magnitude, kept in f16.
double q4_0_error(const PackedMatrix& exact) {
  double error = 0;
  for (int64_t n = 0; n < exact.n; ++n) {
    for (int64_t first = 0; first < exact.k; first += 32) {
      const int64_t end = std::min(first + 32, exact.k);
      float m = 0;
      for (int64_t k = first; k < end; ++k)
        if (const float w = packed_element(exact, n, k); std::fabs(w) > std::fabs(m)) m = w;
      const float d = m / -8, inverse = d != 0 ? 1 / d : 0;
      const double kept = f16_to_f32(f32_to_f16(d));
      for (int64_t k = first; k < end; ++k) {
        const float w = packed_element(exact, n, k);
        const int code = std::min(15, static_cast<int>(w * inverse + 8.5f));
        error += (kept * (code - 8) - w) * (kept * (code - 8) - w);
      }
    }
  }
  return error;
}

class StoreOf : public ::testing::TestWithParam<const char*> {};

TEST_P(StoreOf, Bf16IsWhatTheDirectoryLoads) {
  const ScratchDir dir;
  const auto report = pack(golden_dir(GetParam()), dir / "store");
  ASSERT_TRUE(report.ok()) << report.status().message();
  int checked = 0;
  for (const Compute compute : {Compute::kBf16, Compute::kF32}) {
    if (!report->header.fits(compute)) continue;
    Loaded store = load_dir(dir / "store", compute), whole = load_golden(GetParam(), compute);
    ASSERT_NE(store.model, nullptr);
    EXPECT_EQ(store.model->layers[0].attention.q.storage, StorageKind::kMapped);
    ASSERT_NE(store.model->source, nullptr);
    expect_same(*store.model, *whole.model);
    ++checked;
  }
  EXPECT_TRUE(report->header.fits(Compute::kBf16));
  EXPECT_GE(checked, 1);
}

TEST_P(StoreOf, ACopyOfTheWeightsIsTheWeights) {
  const ScratchDir dir;
  ASSERT_TRUE(pack(golden_dir(GetParam()), dir / "store", {.weights = WeightFormat::kInt8}).ok());
  Loaded mapped = load_dir(dir / "store", Compute::kBf16);
  ASSERT_NE(mapped.model, nullptr);
  const auto rt = runtime_with(2);
  int calls = 0;
  LoadOptions options{.copy = true};
  options.progress = [&](size_t done, size_t total) { return ++calls, done <= total; };
  auto copied = load_model(*rt, dir / "store", options);
  ASSERT_TRUE(copied.ok()) << copied.status().message();
  EXPECT_GT(calls, 1);
  EXPECT_EQ((*copied)->layers[0].attention.q.storage, StorageKind::kHeap);
  expect_same(**copied, *mapped.model);
  options.progress = [](size_t, size_t) { return false; };
  EXPECT_EQ(load_model(*rt, dir / "store", options).status().code(), StatusCode::kCancelled);
}

TEST_P(StoreOf, F32IsWhatTheDirectoryLoadsForComputeF32) {
  const ScratchDir dir;
  const auto report = pack(golden_dir(GetParam()), dir / "store", {.weights = WeightFormat::kF32});
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->header.fits(Compute::kF32));
  for (const StoreEntry& e : report->header.entries) EXPECT_EQ(e.error, 0) << e.name;
  Loaded store = load_dir(dir / "store", Compute::kF32), whole = load_golden(GetParam());
  ASSERT_NE(store.model, nullptr);
  expect_same(*store.model, *whole.model);
}

TEST_P(StoreOf, IntegersAreThePackersOwnAndTheErrorIsTheirs) {
  const ScratchDir dir;
  const auto report =
      pack(golden_dir(GetParam()), dir / "store", {.weights = WeightFormat::kInt4, .group = 128});
  ASSERT_TRUE(report.ok()) << report.status().message();
  Loaded store = load_dir(dir / "store", Compute::kBf16), whole = load_golden(GetParam());
  ASSERT_NE(store.model, nullptr);
  for (size_t l = 0; l < whole.model->layers.size(); ++l) {
    const LayerWeights &q = store.model->layers[l], &w = whole.model->layers[l];
    EXPECT_EQ(q.attention.q.format, WeightFormat::kInt8);
    if (!q.attention.v.empty()) {
      EXPECT_EQ(q.attention.v.format, WeightFormat::kBF16);
    }
    if (w.moe.down.empty()) continue;
    EXPECT_EQ(q.moe.router.format, WeightFormat::kF32);
    const PackedMatrix &a = q.moe.down.back(), &b = w.moe.down.back();
    ASSERT_EQ(a.format, WeightFormat::kInt4);
    EXPECT_EQ(a.block, 128);
    const auto [error, signal] = loss_of(a, b);
    EXPECT_GT(error, 0);
    EXPECT_LT(error, 0.02 * signal);  // 17 dB: 4 bits of a normal distribution give about 20
    const auto& entries = report->header.entries;
    const auto e = std::find_if(entries.begin(), entries.end(), [&](const StoreEntry& x) {
      return x.bytes == a.bytes && std::abs(x.error / error - 1) < 1e-9 &&
             std::abs(x.signal / signal - 1) < 1e-9;
    });
    ASSERT_NE(e, entries.end()) << "layer " << l;
    EXPECT_NEAR(e->beside / q4_0_error(b), 1, 1e-9);
  }
  EXPECT_EQ(store.model->head.format, WeightFormat::kInt8);
  EXPECT_EQ(store.model->embedding.layout, WeightLayout::kRowMajor);
}

TEST_P(StoreOf, GgufFormatsAreWhatPackingMakesOfTheWeights) {
  struct Formats {
    WeightFormat experts, dense;
  };
  for (const auto& [experts, dense] : {Formats{WeightFormat::kQ4_0, WeightFormat::kQ8_0},
                                       Formats{WeightFormat::kQ4_K, WeightFormat::kQ6_K},
                                       Formats{WeightFormat::kIQ4_NL, WeightFormat::kQ5_1}}) {
    const ScratchDir dir;
    const auto report =
        pack(golden_dir(GetParam()), dir / "store", {.weights = experts, .dense = dense});
    ASSERT_TRUE(report.ok()) << report.status().message();
    Loaded store = load_dir(dir / "store", Compute::kBf16), whole = load_golden(GetParam());
    ASSERT_NE(store.model, nullptr);
    const auto expect_packed = [](const PackedMatrix& got, const PackedMatrix& exact,
                                  WeightFormat format) {
      ASSERT_EQ(got.format, format);
      const auto device = make_cpu_device();
      std::vector<float> values;
      for (int64_t n = 0; n < exact.n; ++n)
        for (int64_t k = 0; k < exact.k; ++k) values.push_back(packed_element(exact, n, k));
      const PackedMatrix want =
          pack_matrix(*device, stored_rows(values.data(), exact.n, exact.k), format).value();
      for (int64_t n = 0; n < exact.n; ++n)
        for (int64_t k = 0; k < exact.k; ++k)
          ASSERT_EQ(packed_element(got, n, k), packed_element(want, n, k));
    };
    for (size_t l = 0; l < whole.model->layers.size(); ++l) {
      const LayerWeights &q = store.model->layers[l], &w = whole.model->layers[l];
      expect_packed(q.attention.q, w.attention.q, dense);
      if (w.moe.down.empty()) continue;
      expect_packed(q.moe.down.back(), w.moe.down.back(), experts);
      expect_packed(q.moe.gate_up.front(), w.moe.gate_up.front(), experts);
    }
    EXPECT_EQ(store.model->head.format, WeightFormat::kInt8);
  }
}

TEST_P(StoreOf, Mxfp4IsAsStoredOrChosen) {
  const ScratchDir dir;
  const auto report = pack(golden_dir(GetParam()), dir / "store",
                           {.weights = WeightFormat::kMXFP4, .head = WeightFormat::kMXFP4});
  const std::string name = GetParam();
  if (name == "qwen3moe-b" || name == "gemma4-b") {  // I = 48 and 16
    ASSERT_FALSE(report.ok());
    EXPECT_NE(report.status().message().find("multiple of 32"), std::string::npos);
    return;
  }
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->header.fits_f32 && report->header.fits_bf16);
  Loaded store = load_dir(dir / "store", Compute::kF32), whole = load_golden(GetParam());
  ASSERT_NE(store.model, nullptr);
  EXPECT_EQ(store.model->head.format, WeightFormat::kMXFP4);
  for (size_t l = 0; l < whole.model->layers.size(); ++l) {
    if (whole.model->layers[l].moe.gate_up.empty()) continue;
    const PackedMatrix &a = store.model->layers[l].moe.gate_up[0],
                       &b = whole.model->layers[l].moe.gate_up[0];
    ASSERT_EQ(a.format, WeightFormat::kMXFP4);
    const auto [error, signal] = loss_of(a, b);
    const bool stored = b.format == WeightFormat::kMXFP4;
    EXPECT_TRUE(stored ? error == 0 : error > 0 && error < 0.03 * signal) << error / signal;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, StoreOf,
                         ::testing::Values("qwen3moe-a", "qwen3moe-b", "gemma4-a", "gemma4-b",
                                           "gptoss-a", "gptoss-b"),
                         [](const auto& golden) {
                           std::string name = golden.param;
                           name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
                           return name;
                         });

// f32 weights: rounded to bf16 they no longer serve compute f32, and the refusal says what does.
TEST(Store, SaysForWhichComputeItWasPacked) {
  Checkpoint c = Checkpoint::golden("qwen3moe-a");
  for (auto& [name, t] : c.tensors) {
    CheckpointTensor wide{DType::kF32, t.shape, ""};
    for (int64_t i = 0; i < t.elements(); ++i) wide.append(t.value(i) * 1.0009765625f);
    t = wide;
  }
  const ScratchDir dir;
  fs::create_directory(dir / "model");
  c.write(dir / "model");
  const auto rt = runtime_with(1);
  for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kF32}) {
    const std::string store = dir / std::string(weight_format_name(format));
    const auto report = pack(dir / "model", store, {.weights = format});
    ASSERT_TRUE(report.ok()) << report.status().message();
    const bool f32 = format == WeightFormat::kF32;
    EXPECT_EQ(report->header.fits_f32, f32);
    EXPECT_EQ(report->header.fits_bf16, !f32);
    const Compute good = f32 ? Compute::kF32 : Compute::kBf16;
    Loaded a = load_dir(store, good), b = load_dir(dir / "model", good);
    ASSERT_NE(a.model, nullptr);
    expect_same(*a.model, *b.model);
    const auto wrong = load_model(*rt, store, {.compute = f32 ? Compute::kBf16 : Compute::kF32});
    ASSERT_FALSE(wrong.ok());
    const std::string& says = wrong.status().message();
    EXPECT_NE(says.find(fmt::format("--compute {}", compute_name(good))), says.npos) << says;
    EXPECT_NE(says.find("sluice pack " + dir / "model"), says.npos) << says;
  }
  const auto mixed = pack(dir / "model", dir / "mixed", {.dense = WeightFormat::kF32});
  EXPECT_FALSE(mixed.ok());
}

TEST(Store, AnInterruptedPackGoesOnAndGivesTheSameBytes) {
  const ScratchDir dir;
  const std::string model = golden_dir("gptoss-a");
  const auto whole = pack(model, dir / "whole", {.weights = WeightFormat::kInt4});
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  size_t resumed = 0;
  int packs = 0;
  for (bool done = false; !done; ++packs) {
    ASSERT_LT(packs, 100);
    // Ctrl-C after a few tensors. The first call only tells the total.
    int calls = 0;
    PackOptions options{.weights = WeightFormat::kInt4};
    options.progress = [&](uint64_t, uint64_t) { return ++calls < 12; };
    const auto rt = runtime_with(1);
    const auto report = pack_store(*rt, model, dir / "store", options);
    done = report.ok();
    if (done) {
      resumed = report->resumed;
      for (size_t i = 0; i < whole->header.entries.size(); ++i)
        EXPECT_EQ(report->header.entries[i].beside, whole->header.entries[i].beside);
    } else {
      EXPECT_EQ(report.status().code(), StatusCode::kCancelled) << report.status().message();
      EXPECT_FALSE(fs::exists(dir / "store"));
    }
  }
  EXPECT_GT(packs, 2);
  EXPECT_GT(resumed, 10u);
  EXPECT_EQ(read_file(dir / "store/weights.sluice").size(),
            read_file(dir / "whole/weights.sluice").size());
  EXPECT_TRUE(read_file(dir / "store/weights.sluice") == read_file(dir / "whole/weights.sluice"));
}

TEST(Store, OtherThreadsGiveTheSameBytes) {
  const ScratchDir dir;
  std::string first;
  for (const int threads : {1, 3}) {
    const auto rt = runtime_with(threads);
    const std::string store = dir / std::to_string(threads);
    ASSERT_TRUE(
        pack_store(*rt, golden_dir("qwen3moe-a"), store, {.weights = WeightFormat::kInt8}).ok());
    const std::string bytes = read_file(store + "/weights.sluice");
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first);
  }
}

TEST(Store, OfAnotherModelIsRefused) {
  const ScratchDir dir;
  ASSERT_TRUE(pack(golden_dir("qwen3moe-a"), dir / "a").ok());
  ASSERT_TRUE(pack(golden_dir("qwen3moe-b"), dir / "b").ok());
  fs::copy_file(dir / "b/weights.sluice", dir / "a/weights.sluice",
                fs::copy_options::overwrite_existing);
  const auto rt = runtime_with(1);
  const auto mixed = load_model(*rt, dir / "a", {});
  ASSERT_FALSE(mixed.ok());
  EXPECT_NE(mixed.status().message().find("sluice pack"), std::string::npos);
}

TEST(Store, IsNoModelToPackAndUnknownFormatsAreRefused) {
  const ScratchDir dir;
  ASSERT_TRUE(pack(golden_dir("qwen3moe-a"), dir / "a").ok());
  EXPECT_FALSE(pack(dir / "a", dir / "b").ok());
  EXPECT_FALSE(pack(golden_dir("qwen3moe-a"), dir / "b", {.group = 100}).ok());
  EXPECT_FALSE(pack(dir / "none", dir / "b").ok());
  EXPECT_EQ(store_format_from_name("q4").status().code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(fs::exists(dir / "b"));
}

// The bytes of every panel layout, as they were when kPanelLayoutId got its number: stores that are
// out there hold them. Whoever changes a layout counts the id up and writes the new sums here.
TEST(Store, PanelLayoutsAreWhatTheirIdSays) {
  const auto rt = runtime_with(1);
  std::vector<float> values(33 * 600);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(static_cast<int>(i * 2654435761u >> 20 & 1023) - 512) / 256;
  const StoredMatrix w = stored_rows(values.data(), 33, 600);
  std::map<std::string, uint64_t> sums;
  const auto add = [&](const std::string& name, const Result<PackedMatrix>& m) {
    ASSERT_TRUE(m.ok()) << m.status().message();
    sums[name] = checksum(m->data, m->bytes);
  };
  for (const WeightFormat f : {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kInt4,
                               WeightFormat::kInt8, WeightFormat::kQ8_0, WeightFormat::kQ4_0}) {
    const std::string name(weight_format_name(f));
    add(name, pack_matrix(rt->host(), w, f, {.rounding = IntRounding::kNearest}));
    add(name + " glu", pack_glu(rt->host(), w, w, f, {.rounding = IntRounding::kNearest}));
  }
  std::vector<std::byte> blocks(33 * 2 * 16), scales(33 * 2, std::byte{127});
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::byte>(i * 37 & 255);
  add("mxfp4", pack_mxfp4(rt->host(), {blocks.data(), scales.data(), 33, 64}));
  add("mxfp4 glu", pack_mxfp4_glu_interleaved(rt->host(), {blocks.data(), scales.data(), 32, 64}));
  const std::map<std::string, uint64_t> pinned = {
      {"bf16", 4331002919669256005u},      {"bf16 glu", 7347510537166463821u},
      {"f32", 8699531466794064337u},       {"f32 glu", 6466908851741197567u},
      {"int4", 13932696937180880866u},     {"int4 glu", 16688565124427918136u},
      {"int8", 10604573949725301739u},     {"int8 glu", 16205981043307253951u},
      {"mxfp4", 4668148017859578139u},     {"mxfp4 glu", 12153773795409206887u},
      {"q4_0 glu", 7897218487887714904u},  {"q4_0", 5607077819701505494u},
      {"q8_0 glu", 16219071500402904127u}, {"q8_0", 6192320465688341920u}};
  EXPECT_EQ(kPanelLayoutId, 1u);
  EXPECT_EQ(sums, pinned);
}

}  // namespace
}  // namespace sluice
