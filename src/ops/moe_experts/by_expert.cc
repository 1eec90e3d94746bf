#include "ops/moe_experts/by_expert.h"

#include "ops/parallel.h"
#include "simd/streaming.h"

namespace sluice {
namespace {

// An expert is the unit that workers share, so the last one to end may leave the others idle for
// the time of one.
constexpr int64_t kExpertsPerWorker = 8;

// Rows of outputs that take as much are read again, by the weighted sum, when they have left the
// second-level caches.
constexpr int64_t kStreamedBytes = int64_t{8} << 20;

int64_t rows_of(const GroupedPlan& plan, int64_t e) {
  const auto& starts = plan.args.starts;
  return starts[static_cast<size_t>(e) + 1] - starts[static_cast<size_t>(e)];
}

}  // namespace

bool multiply_by_expert(const ExecContext& context, GroupedPlan& up, const GroupedPlan& down,
                        Workspace place) {
  const int64_t workers = workers_of(context);
  if (std::ssize(up.active) < kExpertsPerWorker * workers) return false;
  const Arith arith = up.args.arith;
  int64_t most = 0;
  for (const int32_t e : up.active) most = rows_of(up, e) > most ? rows_of(up, e) : most;

  WorkspaceCarver carver(place);
  const int64_t d = up.args.x.cols, width = up.args.out.cols;
  const int64_t rows_floats = round_up(prepared_floats(most, d, arith), 16);
  const int64_t hidden_floats = round_up(prepared_floats(most, width, arith), 16);
  const int64_t rounded = prepared_floats(up.args.x.rows, d, arith);
  float* rows = carver.take<float>(workers * rows_floats);
  float* hidden = carver.take<float>(workers * hidden_floats);
  float* codes = quantizes_x(arith) ? carver.take<float>(workers * hidden_floats) : hidden;
  if (rows == nullptr || hidden == nullptr || codes == nullptr) return false;
  if (float* p = carver.take<float>(rounded); p != nullptr)
    up.rounded = {reinterpret_cast<std::byte*>(p), static_cast<size_t>(rounded) * sizeof(float)};

  const bool streams = down.args.starts.back() * d * int64_t{sizeof(float)} >= kStreamedBytes;
  PanelProduct all;
  const bool gathered = round_once(context, up, &all);
  parallel_items(context, std::ssize(up.active), [&](int64_t i, int64_t worker) {
    const int32_t e = up.active[static_cast<size_t>(i)];
    PanelProduct first = expert_product(up, e);
    first.prepared = rows + worker * rows_floats;
    first.out = hidden + worker * hidden_floats;
    if (gathered)
      up.kernel->gather(all, first, 0, first.row_count);
    else
      up.kernel->prepare(first, 0, first.row_count);
    multiply_panels(up, first);
    PanelProduct second = expert_product(down, e);
    second.x = first.out;
    second.prepared = codes + worker * hidden_floats;
    second.out_streams = streams;
    if (quantizes_x(arith)) down.kernel->prepare(second, 0, second.row_count);
    multiply_panels(down, second);
    if (streams) streamed_stores_end();
  });
  return true;
}

}  // namespace sluice
