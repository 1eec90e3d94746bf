// Packed stores of fp8 checkpoints: codes and scales stay, so that every weight is what the widened
// directory gives.
#include <filesystem>
#include <random>

#include "model/checkpoint_files.h"
#include "model/pack_store.h"
#include "ops/matmul/pack.h"

namespace sluice {
namespace {

CheckpointTensor codes(std::vector<int64_t> shape, std::mt19937& random) {
  CheckpointTensor t{DType::kF8E4M3, std::move(shape), ""};
  for (int64_t i = 0; i < t.elements(); ++i)
    t.append(static_cast<uint8_t>(random() % 2 * 128 + random() % 120));
  return t;
}
CheckpointTensor scales(std::vector<int64_t> shape, std::mt19937& random) {
  CheckpointTensor t{DType::kF32, std::move(shape), ""};
  for (int64_t i = 0; i < t.elements(); ++i)
    t.append(static_cast<float>(1 + random() % 255) / 4096.0f);
  return t;
}

// Experts with scales for ragged blocks of 24 rows, attention by tensor and by channel.
Checkpoint fp8_checkpoint() {
  std::mt19937 random(7);
  Checkpoint c = Checkpoint::golden("qwen3moe-a");
  c.config["quantization_config"] = {
      {"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {24, 128}}};
  for (int l = 0; l < 3; ++l) {
    const std::string layer = fmt::format("model.layers.{}.", l);
    for (int e = 0; e < 8; ++e)
      for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
        const std::string w = fmt::format("{}mlp.experts.{}.{}.weight", layer, e, name);
        const std::vector<int64_t> shape = c.tensors.at(w).shape;
        c.tensors[w] = codes(shape, random);
        c.tensors[w + "_scale_inv"] = scales({ceil_div(shape[0], 24), 1}, random);
      }
    const std::string q = layer + "self_attn.q_proj.weight", o = layer + "self_attn.o_proj.weight";
    c.tensors[q] = codes(c.tensors.at(q).shape, random);
    c.tensors[q + "_scale"] = scales({}, random);
    c.tensors[o] = codes(c.tensors.at(o).shape, random);
    c.tensors[o + "_scale"] = scales({c.tensors[o].shape[0], 1}, random);
  }
  return c;
}

void expect_kept(const PackedMatrix& kept, const PackedMatrix& widened) {
  ASSERT_EQ(kept.format, WeightFormat::kFP8);
  for (int64_t n = 0; n < kept.n; ++n)
    for (int64_t k = 0; k < kept.k; ++k)
      ASSERT_EQ(packed_element(kept, n, k), packed_element(widened, n, k)) << n << " " << k;
}

TEST(Fp8Store, KeepsTheCodesOfTheCheckpoint) {
  const ScratchDir dir;
  std::filesystem::create_directories(dir / "model");
  fp8_checkpoint().write(dir / "model");
  const auto rt = runtime_with(2);
  const auto report =
      pack_store(*rt, dir / "model", dir / "store", {.weights = WeightFormat::kFP8});
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->header.fits(Compute::kF32) || report->header.fits(Compute::kBf16));
  const Compute compute = report->header.fits(Compute::kBf16) ? Compute::kBf16 : Compute::kF32;
  const Loaded store = load_dir(dir / "store", compute), whole = load_dir(dir / "model");
  ASSERT_NE(store.model, nullptr);
  ASSERT_NE(whole.model, nullptr);
  for (size_t l = 0; l < 3; ++l) {
    const LayerWeights &a = store.model->layers[l], &b = whole.model->layers[l];
    expect_kept(a.attention.q, b.attention.q);
    expect_kept(a.attention.o, b.attention.o);
    EXPECT_EQ(a.attention.k.format, WeightFormat::kFP8);  // chosen: stored as bf16
    EXPECT_NE(a.attention.v.format, WeightFormat::kFP8);
    EXPECT_EQ(a.moe.router.format, WeightFormat::kF32);
    for (size_t e = 0; e < 8; ++e) {
      expect_kept(a.moe.gate_up[e], b.moe.gate_up[e]);
      expect_kept(a.moe.down[e], b.moe.down[e]);
    }
  }
  for (const StoreEntry& e : report->header.entries) {
    if (e.role != "experts") continue;
    EXPECT_EQ(e.error, 0) << e.name;
  }
}

TEST(Fp8Store, ANaNCodeIsNamed) {
  const ScratchDir dir;
  Checkpoint c = fp8_checkpoint();
  c.tensors["model.layers.1.mlp.experts.2.down_proj.weight"].bytes[40] = '\x7f';
  std::filesystem::create_directories(dir / "model");
  c.write(dir / "model");
  const auto rt = runtime_with(2);
  const auto report =
      pack_store(*rt, dir / "model", dir / "store", {.weights = WeightFormat::kFP8});
  ASSERT_FALSE(report.ok());
  const std::string& says = report.status().message();
  EXPECT_NE(says.find("NaN"), says.npos) << says;
  EXPECT_NE(says.find("layers.1.mlp.experts"), says.npos) << says;
}

}  // namespace
}  // namespace sluice
