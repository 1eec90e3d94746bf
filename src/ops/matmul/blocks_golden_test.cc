// GGUF's formats against the gguf package: packed blocks mean what its dequantiser says, our q8_0
// and q4_0 codes are its quantiser's, bit for bit, and the others lose no more than ggml's
// (tools/goldens/make_block_goldens.py).
#include <gtest/gtest.h>

#include <cstring>

#include "ops/matmul/weights_data.h"
#include "weights/safetensors.h"

namespace sluice {
namespace {

class BlockGolden : public ::testing::Test {
 protected:
  void SetUp() override {
    auto source = open_safetensors_file(
        std::string(SLUICE_SOURCE_DIR "/tests/goldens/blocks/blocks.safetensors"));
    ASSERT_TRUE(source.ok()) << source.status().message();
    source_ = std::move(*source);
  }
  const TensorView* find(std::string_view format, std::string_view what) const {
    for (const TensorView& v : source_->tensors())
      if (v.name == std::string(format) + "." + std::string(what)) return &v;
    return nullptr;
  }
  const std::unique_ptr<Device> device_ = make_cpu_device();
  std::unique_ptr<TensorSource> source_;
};

std::vector<WeightFormat> block_formats() {
  std::vector<WeightFormat> out;
  for (int i = 0; i < kWeightFormats; ++i)
    if (is_block_format(static_cast<WeightFormat>(i))) out.push_back(static_cast<WeightFormat>(i));
  return out;
}

TEST_F(BlockGolden, PackedBlocksHaveTheValuesOfTheirDequantiser) {
  for (const WeightFormat format : block_formats()) {
    const std::string_view name = weight_format_name(format);
    const TensorView *blocks = find(name, "blocks"), *values = find(name, "values");
    ASSERT_TRUE(blocks != nullptr && values != nullptr) << name;
    const int64_t n = values->shape[0], k = values->shape[1];
    ASSERT_EQ(blocks->bytes, static_cast<size_t>(n) * stored_row_bytes(format, k)) << name;
    const StoredBlocks stored{format, blocks->data, n, k};
    const PackedMatrix plain = pack_stored_blocks(*device_, stored).value();
    const PackedMatrix glu = pack_stored_blocks_glu(*device_, stored, stored).value();
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < k; ++j) {
        float want = 0;
        std::memcpy(&want, values->data + (i * k + j) * 4, 4);
        ASSERT_EQ(packed_element(plain, i, j), want) << name << " " << i << " " << j;
        ASSERT_EQ(packed_element(glu, i, j), want) << name;
        ASSERT_EQ(packed_element(glu, n + i, j), want) << name;
      }
  }
}

TEST_F(BlockGolden, ChosenCodesAreThoseOfTheQuantiser) {
  for (const WeightFormat format : {WeightFormat::kQ8_0, WeightFormat::kQ4_0}) {
    const std::string_view name = weight_format_name(format);
    const TensorView *weights = find(name, "weights"), *quantized = find(name, "quantized");
    ASSERT_TRUE(weights != nullptr && quantized != nullptr) << name;
    const StoredMatrix stored = stored_rows(weights->data, weights->shape[0], weights->shape[1]);
    const PackedMatrix ours = pack_matrix(*device_, stored, format).value();
    const PackedMatrix theirs =
        pack_stored_blocks(*device_, {format, quantized->data, stored.n, stored.k}).value();
    ASSERT_EQ(ours.bytes, theirs.bytes);
    // Columns past N are ours to fill: their scales are 0.
    for (int64_t i = 0; i < stored.n; ++i)
      for (int64_t j = 0; j < stored.k; ++j)
        ASSERT_TRUE(test::same_bits(packed_element(ours, i, j), packed_element(theirs, i, j)))
            << name << " " << i << " " << j;
  }
}

TEST_F(BlockGolden, ChosenCodesLoseNoMoreThanGgmls) {
  for (const WeightFormat format : block_formats()) {
    if (format == WeightFormat::kQ8_0 || format == WeightFormat::kQ4_0) continue;
    const std::string_view name = weight_format_name(format);
    const TensorView *weights = find(name, "weights"), *theirs = find(name, "ggml_values");
    ASSERT_TRUE(weights != nullptr && theirs != nullptr) << name;
    const StoredMatrix stored = stored_rows(weights->data, weights->shape[0], weights->shape[1]);
    const PackedMatrix ours = pack_matrix(*device_, stored, format).value();
    const auto value = [&](const TensorView* of, int64_t i) {
      float v = 0;
      std::memcpy(&v, of->data + i * 4, 4);
      return static_cast<double>(v);
    };
    double our_error = 0, their_error = 0;
    for (int64_t i = 0; i < stored.n * stored.k; ++i) {
      const double w = value(weights, i);
      const double got = packed_element(ours, i / stored.k, i % stored.k);
      our_error += (got - w) * (got - w);
      their_error += (value(theirs, i) - w) * (value(theirs, i) - w);
    }
    EXPECT_GT(our_error, 0) << name;
    EXPECT_LE(our_error, their_error) << name;
  }
}

}  // namespace
}  // namespace sluice
