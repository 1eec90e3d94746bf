// unpack_panel gives what packed_element gives, in every format and layout.
#include <gtest/gtest.h>

#include "ops/matmul/weights_data.h"

namespace sluice {
namespace {

using test::Random;

void expect_elements(const PackedMatrix& m) {
  const bool glu = m.layout == WeightLayout::kGluPanel16;
  const int64_t outputs = glu ? m.n / 2 : m.n;
  std::vector<float> panel(static_cast<size_t>(m.k * kPanelColumns));
  for (int64_t p = 0; p < m.panels(); ++p) {
    unpack_panel(m, p, panel.data());
    for (int64_t c = 0; c < kPanelColumns; ++c) {
      const int64_t unit = (glu ? p / 2 : p) * kPanelColumns + c;
      if (unit >= outputs) continue;
      const int64_t n = glu && p % 2 == 1 ? outputs + unit : unit;
      for (int64_t k = 0; k < m.k; ++k)
        ASSERT_TRUE(test::same_bits(panel[static_cast<size_t>(k * kPanelColumns + c)],
                                    packed_element(m, n, k)))
            << weight_format_name(m.format) << " " << n << " " << k;
    }
  }
}

TEST(Unpack, EveryElementOfEveryFormatAndLayout) {
  Random random(5);
  const auto device = make_cpu_device();
  for (int round = 0; round < 20; ++round) {
    const int64_t n = random.between(1, 40), k = random.between(1, 1200);
    const IntPacking how = test::random_packing(random);
    for (int i = 0; i < kWeightFormats; ++i) {
      const auto f = static_cast<WeightFormat>(i);
      if (f == WeightFormat::kMXFP4 || f == WeightFormat::kF16) continue;
      expect_elements(test::random_panels(*device, f, n, k, random, false, how));
      expect_elements(test::random_glu_panels(*device, f, n, k, random, false, how));
    }
    const int64_t blocks = round_up(k, 32);
    expect_elements(test::random_panels(*device, WeightFormat::kMXFP4, n, blocks, random));
    expect_elements(test::random_glu_panels(*device, WeightFormat::kMXFP4, n, blocks, random));
  }
}

}  // namespace
}  // namespace sluice
