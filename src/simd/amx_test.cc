// The emulated tiles against the hardware's, bit for bit: every row count, ragged columns and k,
// subnormals and values 80 octaves apart. Skipped where the machine has no tiles; what the
// emulation must give by definition is tested everywhere.
#include "simd/amx.h"

#include <gtest/gtest.h>

#include <random>

#include "base/float_env.h"
#include "base/fp.h"
#include "simd/isa.h"

namespace sluice {
namespace {

using simd::EmulatedTiles;
using simd::TileConfig;

// sum [rows, columns], left [rows, 4 k bytes], right [k, 4 columns bytes], each with a stride of
// 64 bytes; what lies outside is to stay.
struct Operands {
  int64_t rows = 16, columns = 16, k = 16;
  alignas(64) std::byte sum[16][64] = {}, left[16][64] = {}, right[16][64] = {};
  TileConfig config() const {
    TileConfig c;
    c.set(0, rows, 4 * columns);
    c.set(1, rows, 4 * k);
    c.set(2, k, 4 * columns);
    return c;
  }
};

enum class Product { kBf16, kS8S8, kU8S8, kS8U8 };
constexpr Product kProducts[] = {Product::kBf16, Product::kS8S8, Product::kU8S8, Product::kS8U8};

template <class Tiles>
void multiply(Product product, Operands& x) {
  Tiles tiles(x.config());
  tiles.template load<0>(x.sum, 64);
  tiles.template load<1>(x.left, 64);
  tiles.template load_once<2>(x.right, 64);
  switch (product) {
    case Product::kBf16:
      tiles.template dp_bf16<0, 1, 2>();
      break;
    case Product::kS8S8:
      tiles.template dp_s8s8<0, 1, 2>();
      break;
    case Product::kU8S8:
      tiles.template dp_u8s8<0, 1, 2>();
      break;
    case Product::kS8U8:
      tiles.template dp_s8u8<0, 1, 2>();
      break;
  }
  tiles.template store<0>(x.sum, 64);
}

class Values {
 public:
  explicit Values(uint32_t seed) : random_(seed) {}
  uint32_t bits() { return static_cast<uint32_t>(random_()); }
  // Finite; the exponents of a call lie in one of: around 1, +-40 octaves, near the subnormals.
  float real(int range) {
    const uint32_t sign_and_fraction = bits() & 0x807fffffu;
    const auto draw = [&](int low, int high) {
      return static_cast<uint32_t>(low + static_cast<int>(bits() % uint32_t(high - low + 1)));
    };
    const uint32_t exponent = range == 0   ? draw(124, 130)
                              : range == 1 ? draw(87, 167)
                              : range == 2 ? draw(60, 68)  // products about 2^-126
                                           : draw(0, 2);
    return bits_to_f32(sign_and_fraction | exponent << 23);
  }
  void fill(Product product, Operands& x) {
    const int range = static_cast<int>(bits() % 4);
    for (int r = 0; r < 16; ++r)
      for (int i = 0; i < 16; ++i) {
        put(x.left[r] + 4 * i, product, range);
        put(x.right[r] + 4 * i, product, range == 3 ? 0 : range);
        const uint32_t sum =
            product == Product::kBf16 ? f32_to_bits(real(range == 2 ? 3 : range)) : bits();
        std::memcpy(x.sum[r] + 4 * i, &sum, 4);
      }
  }

 private:
  void put(std::byte* p, Product product, int range) {
    uint32_t v = bits();
    if (product == Product::kBf16)
      v = f32_to_bits(real(range)) >> 16 | (f32_to_bits(real(range)) & 0xffff0000u);
    std::memcpy(p, &v, 4);
  }
  std::mt19937 random_;
};

TEST(AmxTiles, HardwareAndEmulationGiveTheSameBits) {
#if defined(__x86_64__)
  if (detect_isa() < Isa::kAmx) GTEST_SKIP() << "AmxTiles: this machine has no amx";
  const ScopedFloatEnv env;
  Values values(1);
  int64_t subnormals = 0;
  for (const Product product : kProducts)
    for (int64_t rows = 1; rows <= 16; ++rows)
      for (int i = 0; i < 60; ++i) {
        Operands got;
        got.rows = rows;
        if (i % 3 == 1) got.columns = 1 + i % 16;
        if (i % 3 == 2) got.k = 1 + i % 16;
        values.fill(product, got);
        Operands want = got;
        multiply<simd::AmxTiles>(product, got);
        multiply<EmulatedTiles>(product, want);
        ASSERT_EQ(std::memcmp(got.sum, want.sum, sizeof(got.sum)), 0)
            << "product " << static_cast<int>(product) << ", rows " << rows << ", case " << i;
        for (int64_t r = 0; product == Product::kBf16 && r < rows; ++r)
          subnormals += (static_cast<int>(want.left[r][1]) & 0x7f) == 0;
      }
  EXPECT_GT(subnormals, 100);  // the hard cases were there
#else
  GTEST_SKIP() << "AmxTiles: this machine has no amx";
#endif
}

TEST(EmulatedTiles, FollowTheWrittenOrder) {
  // e = 2^24, o = 1 + 1: their sum keeps both ones, which one chain would lose.
  const ScopedFloatEnv env;
  Operands x;
  x.rows = x.columns = 1;
  x.k = 2;
  const uint16_t left[] = {0x4b80, 0x3f80, 0, 0x3f80}, one = 0x3f80;  // 2^24, 1, 0, 1
  std::memcpy(x.left[0], left, sizeof(left));
  for (int k = 0; k < 2; ++k)
    for (int i = 0; i < 2; ++i) std::memcpy(x.right[k] + 2 * i, &one, 2);
  const float start = -16777216.0f;
  std::memcpy(x.sum[0], &start, 4);
  multiply<EmulatedTiles>(Product::kBf16, x);
  float sum;
  std::memcpy(&sum, x.sum[0], 4);
  EXPECT_EQ(sum, 2.0f);
}

TEST(EmulatedTiles, IntegersAreExactAndNothingElseIsTouched) {
  Operands x;
  x.rows = 2;
  x.columns = 3;
  x.k = 1;
  std::memset(x.left, 0xff, sizeof(x.left));    // -1 or 255
  std::memset(x.right, 0x80, sizeof(x.right));  // -128 or 128
  const auto element = [](Product product, const Operands& given, int row, int column) {
    Operands y = given;
    multiply<EmulatedTiles>(product, y);
    int32_t v;
    std::memcpy(&v, y.sum[row] + 4 * column, 4);
    return v;
  };
  EXPECT_EQ(element(Product::kS8S8, x, 1, 2), 4 * 128);
  EXPECT_EQ(element(Product::kU8S8, x, 1, 2), 4 * 255 * -128);
  EXPECT_EQ(element(Product::kS8U8, x, 1, 2), 4 * -128);
  EXPECT_EQ(element(Product::kS8S8, x, 1, 3), 0);
  EXPECT_EQ(element(Product::kS8S8, x, 2, 0), 0);
}

}  // namespace
}  // namespace sluice
