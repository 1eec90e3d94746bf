// Execution never allocates in the steady state: the expert layer, called again, takes no memory
// from the heap.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "ops/matmul/weights_data.h"
#include "ops/moe_experts/moe_experts.h"

namespace {
std::atomic<int64_t> allocations{0};
}

// Not inlined: GCC 12 would take malloc's and free's sides of an inlined pair for a mismatch.
[[gnu::noinline]] void* operator new(size_t bytes) {
  allocations.fetch_add(1);
  if (void* p = std::malloc(bytes > 0 ? bytes : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept {
  std::free(p);
}

namespace sluice {
namespace {

TEST(Allocation, AnExpertLayerTakesNothingFromTheHeap) {
  constexpr int64_t t = 40, k = 2, experts = 4, d = 64, width = 48;
  test::Context context(detect_isa(), 2);
  test::Random random(81);
  test::Matrix x(t, d), out(t, d);
  x.fill(random);
  std::vector<PackedMatrix> up, down;
  for (int64_t e = 0; e < experts; ++e) {
    up.push_back(test::random_glu_panels(*context.device, WeightFormat::kBF16, width, d, random));
    down.push_back(test::random_panels(*context.device, WeightFormat::kBF16, d, width, random));
  }
  std::vector<const PackedMatrix*> up_ptrs, down_ptrs;
  for (size_t e = 0; e < up.size(); ++e) {
    up_ptrs.push_back(&up[e]);
    down_ptrs.push_back(&down[e]);
  }
  std::vector<int32_t> ids(t * k);
  for (int32_t& id : ids) id = static_cast<int32_t>(random.below(experts));
  const std::vector<float> weights(ids.size(), 0.5f);
  test::Scratch scratch(moe_experts_workspace_bytes({t, k, experts, d, width}));
  MoeExpertsArgs args;
  args.arith = Arith::kBf16Tile;
  args.x = x.view();
  args.ids = ids;
  args.weights = weights;
  args.k = k;
  args.experts.gate_up = up_ptrs;
  args.experts.down = down_ptrs;
  args.experts.width = width;
  args.out = out.view();
  ASSERT_TRUE(moe_experts(context.exec, args, scratch.workspace()).ok());
  const int64_t before = allocations.load();
  const bool ok = moe_experts(context.exec, args, scratch.workspace()).ok();
  const int64_t taken = allocations.load() - before;
  EXPECT_TRUE(ok);
  EXPECT_EQ(taken, 0);
  EXPECT_GT(before, 0);  // the counter counts
}

}  // namespace
}  // namespace sluice
