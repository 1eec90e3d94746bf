// embed: every kernel row, table dtype and layout against the stored values themselves; errors.
#include "ops/embed/embed.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/float_env.h"
#include "ops/embed/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;

// A table of random bit patterns (every half of f16 and bf16 occurs, NaN included) that starts
// `shift` bytes past an aligned address and ends where its last byte does.
struct Table {
  Table(WeightFormat format, WeightLayout layout, int64_t v, int64_t d, size_t shift,
        uint64_t seed) {
    matrix.format = format;
    matrix.layout = layout;
    matrix.n = v;
    matrix.k = d;
    matrix.bytes = packed_bytes(format, layout, v, d);
    storage.resize(matrix.bytes + shift);
    Random random(seed);
    for (std::byte& b : storage) b = static_cast<std::byte>(random.below(256));
    matrix.data = storage.data() + shift;
  }
  // Bytes of element (n, k), found by the words of weights/packed.h.
  float value(int64_t n, int64_t k) const {
    const bool rows = matrix.layout == WeightLayout::kRowMajor;
    const size_t width = matrix.format == WeightFormat::kF32 ? 4 : 2;
    const int64_t pair = matrix.format == WeightFormat::kBF16 && !rows ? 2 : 1;
    const int64_t in_panel = ((k / pair) * 16 + n % 16) * pair + k % pair;
    const std::byte* at =
        rows ? matrix.data + static_cast<size_t>(n * matrix.k + k) * width
             : matrix.data + static_cast<size_t>(n / 16) * panel_bytes(matrix.format, matrix.k) +
                   static_cast<size_t>(in_panel) * width;
    float f = 0;
    uint16_t h = 0;
    if (width == 4) return std::memcpy(&f, at, 4), f;
    std::memcpy(&h, at, 2);
    return matrix.format == WeightFormat::kF16 ? f16_to_f32(h)
                                               : static_cast<float>(bf16::from_bits(h));
  }
  std::vector<std::byte> storage;
  PackedMatrix matrix;
};

using Row = Kernel<EmbedKernel>;
class EmbedRow : public ::testing::TestWithParam<Row> {};

TEST_P(EmbedRow, EqualsTheStoredValues) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context context(GetParam().isa, 2);
  const std::pair<WeightFormat, WeightLayout> forms[] = {
      {WeightFormat::kF32, WeightLayout::kRowMajor},  {WeightFormat::kF16, WeightLayout::kRowMajor},
      {WeightFormat::kBF16, WeightLayout::kRowMajor}, {WeightFormat::kF32, WeightLayout::kPanel16},
      {WeightFormat::kBF16, WeightLayout::kPanel16},
  };
  for (const auto& [format, layout] : forms) {
    for (const int64_t d : {1, 15, 16, 17, 64, 100, 1000}) {
      const Table table(format, layout, 50, d, static_cast<size_t>(d % 4), 7);
      const std::vector<int32_t> ids = {0, 49, 15, 16, 31, 31, 48};
      Matrix out(7, d, d % 3, d % 2);
      EmbedArgs args;
      args.ids = ids;
      args.table = &table.matrix;
      args.scale = 1.7f;
      args.out = out.view();
      const Status s = context.finish(embed(context.exec, args));
      ASSERT_TRUE(s.ok()) << s.message();
      const ScopedFloatEnv env;
      for (int64_t t = 0; t < 7; ++t)
        for (int64_t k = 0; k < d; ++k)
          ASSERT_TRUE(same_bits(out.at(t, k), table.value(ids[static_cast<size_t>(t)], k) * 1.7f))
              << weight_format_name(format) << " " << weight_layout_name(layout) << ", D = " << d;
      EXPECT_TRUE(out.guards_hold());
    }
  }
}

TEST_P(EmbedRow, EveryHalfIsExact) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context context(GetParam().isa);
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  PackedMatrix table;
  table.layout = WeightLayout::kRowMajor;
  table.n = 64;
  table.k = 1024;
  table.bytes = 131072;
  table.data = reinterpret_cast<const std::byte*>(halves.data());
  std::vector<int32_t> ids(64);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  Matrix out(64, 1024);
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kBF16}) {
    table.format = format;
    // Volatile, because the compiler would drop a product with 1, which flushes subnormals.
    const volatile float one = 1.0f;
    ASSERT_TRUE(context.finish(embed(context.exec, {ids, &table, one, out.view()})).ok());
    const ScopedFloatEnv env;
    for (size_t i = 0; i < halves.size(); ++i) {
      const float want = format == WeightFormat::kF16
                             ? f16_to_f32(halves[i])
                             : static_cast<float>(bf16::from_bits(halves[i]));
      ASSERT_TRUE(same_bits(out.at(static_cast<int64_t>(i / 1024), static_cast<int64_t>(i % 1024)),
                            want * one))
          << weight_format_name(format) << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmbedRow, ::testing::ValuesIn(test::all_rows(embed_kernels())),
                         test::RowName());

TEST(Embed, SaysWhatIsWrong) {
  const Context context(Isa::kReference);
  const Table table(WeightFormat::kBF16, WeightLayout::kRowMajor, 5, 8, 0, 1);
  Matrix out(1, 8);
  const auto failure = [&](int32_t id, PackedMatrix m, MatrixF32 to) {
    const Status s = embed(context.exec, {{&id, 1}, &m, 1.0f, to});
    return s.ok() ? std::string() : s.message();
  };
  EXPECT_EQ(failure(4, table.matrix, out.view()), "");
  EXPECT_NE(failure(5, table.matrix, out.view()).find("ids: expected V in [0, 5), got 5"),
            std::string::npos);
  EXPECT_NE(failure(-1, table.matrix, out.view()).find("got -1"), std::string::npos);
  EXPECT_NE(failure(0, table.matrix, {out.view().data, 1, 7}).find("[T, D] = [1, 8]"),
            std::string::npos);
  EXPECT_NE(failure(0, table.matrix, {out.view().data, 1, 8, 4}).find("stride"), std::string::npos);
  PackedMatrix m = table.matrix;
  m.bytes -= 1;
  EXPECT_NE(failure(0, m, out.view()).find("table: expected 80 bytes"), std::string::npos);
  m = table.matrix;
  m.data = nullptr;
  EXPECT_NE(failure(0, m, out.view()).find("table: is missing"), std::string::npos);
  m = table.matrix;
  m.format = WeightFormat::kF16;
  m.layout = WeightLayout::kPanel16;
  EXPECT_NE(failure(0, m, out.view()).find("no kernel for format f16 in layout panel16"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
