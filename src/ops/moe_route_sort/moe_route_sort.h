// moe_route_sort: routing and sorting in one call, for the few rows of a decode step.
//
//   moe_route -> moe_sort, bit for bit what the chain gives at every token count
// Up to a budget of tokens the call is one launch, on CUDA devices if there are at most 2048 pairs.
// On the CPU that is the calling thread without the pool: a decode step's routing is shorter than
// waking a worker. Beyond the budget it is the chain, rows over the pool. Stats say which it was.
//
// What the sort takes from the route: its ids [T, K+S] and weights, so that shared experts are
// sorted with the others. Arguments are the pieces'; of sort, ids, k, weights and live_tokens are
// the route's and must be left empty. route.out_stride must be 0. Rows behind route.live_tokens
// take no part in either.
//
// token_budget | negative: the default, kRouteSortLogits / E tokens; 0: always the chain
// Errors: as the pieces; sort arguments that belong to the route.
#pragma once

#include "ops/moe_route/moe_route.h"
#include "ops/moe_sort/moe_sort.h"

namespace sluice {

// The fewest logits that moe_route shares out: with awake workers the chain wins from twice that on
// (bench.cc: 2 threads, E = 256: 32 rows in 10 us against 16 on one).
inline constexpr int64_t kRouteSortLogits = 4096;

struct RouteSortStats {
  int64_t fused_calls = 0, chained_calls = 0;
};
struct MoeRouteSortArgs {
  MoeRouteArgs route;
  MoeSortArgs sort;
  int64_t token_budget = -1;
  RouteSortStats* stats = nullptr;  // added to
};
// Tokens up to which a call over so many experts is fused.
int64_t moe_route_sort_budget(int64_t experts);
Status moe_route_sort(const ExecContext& context, const MoeRouteSortArgs& args);

}  // namespace sluice
