// The kernels' floating-point environment, and that the caller's comes back.
#include "base/float_env.h"

#include <gtest/gtest.h>

#include <cfenv>

namespace sluice {
namespace {

#if defined(__SSE2__)
TEST(FloatEnv, SubnormalsAreZeroInside) {
  const volatile float tiny = 1e-40f, small = 1e-30f, one = 1.0f;
  const volatile float before = tiny * one;
  EXPECT_GT(before, 0.0f);
  {
    const ScopedFloatEnv env;
    const volatile float input = tiny * 1e30f;     // denormals are zero
    const volatile float output = small * 1e-10f;  // results flush to zero
    EXPECT_EQ(input, 0.0f);
    EXPECT_EQ(output, 0.0f);
    {
      const ScopedFloatEnv nested;
      const volatile float again = small * 1e-10f;
      EXPECT_EQ(again, 0.0f);
    }
    const volatile float still = small * 1e-10f;
    EXPECT_EQ(still, 0.0f);
  }
  const volatile float after = tiny * one;
  EXPECT_GT(after, 0.0f);
}

TEST(FloatEnv, RoundsToNearestWhateverTheCallerDoes) {
  const volatile float one = 1.0f, quarter = 0x1p-25f;
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  const volatile float up = one + quarter;
  float nearest = 0;
  {
    const ScopedFloatEnv env;
    const volatile float sum = one + quarter;
    nearest = sum;
  }
  const int mode = std::fegetround();
  std::fesetround(FE_TONEAREST);
  EXPECT_GT(up, 1.0f);
  EXPECT_EQ(nearest, 1.0f);
  EXPECT_EQ(mode, FE_UPWARD);
}
#endif

}  // namespace
}  // namespace sluice
