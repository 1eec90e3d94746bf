// What the machine grants us: bounds that hold anywhere.
#include "base/topology.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <vector>

namespace sluice {
namespace {

TEST(Topology, CoresAreWithinTheMachine) {
  EXPECT_GE(available_cores(), 1);
  EXPECT_LE(available_cores(), sysconf(_SC_NPROCESSORS_CONF));
}

TEST(Topology, ResidentMemoryFollowsWhatIsTouched) {
  const size_t limit = memory_limit_bytes(), before = resident_bytes();
  EXPECT_GT(limit, size_t{64} << 20);
  EXPECT_LT(before, limit);
  constexpr size_t kBytes = size_t{32} << 20;
  std::vector<char> touched(kBytes);
  std::memset(touched.data(), 1, kBytes);
  EXPECT_EQ(touched[kBytes / 2], 1);
  EXPECT_GT(resident_bytes(), before + kBytes / 2);
  EXPECT_GE(peak_resident_bytes() + (size_t{1} << 20), before + kBytes / 2);
}

}  // namespace
}  // namespace sluice
