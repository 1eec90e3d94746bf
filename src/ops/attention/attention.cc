#include "ops/attention/attention.h"

#include <algorithm>

#include "ops/attention/kernels.h"
#include "ops/attention/row.h"
#include "ops/kernel_table.h"
#include "ops/parallel.h"

namespace sluice {
namespace {

constexpr Kernel<AttentionKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/attention/kernels.inc"
#undef SLUICE_KERNEL
};

constexpr int64_t kRowBlock = 16;      // most tokens of one task
constexpr int64_t kMinimumSplits = 4;  // of a row, to share its splits among workers

// Thread blocks that fill a large GPU: with fewer, rows share their splits out.
constexpr int64_t kEnoughBlocks = 528;

Status check_sequences(const AttentionArgs& a) {
  const int64_t t = a.q.rows, s = static_cast<int64_t>(a.query_starts.size()) - 1;
  if (a.query_starts[0] != 0 || a.query_starts.back() > t)
    return invalid_argument("attention: query_starts: expected [S+1] from 0 to at most T = {}", t);
  for (int64_t i = 0; i < s; ++i) {
    const int32_t begin = a.query_starts[i], end = a.query_starts[i + 1];
    if (end < begin)
      return invalid_argument("attention: query_starts: expected ascending, got {} after {}", end,
                              begin);
    int64_t first = INT64_MAX, last = -1;
    for (int32_t r = begin; r < end; ++r) {
      if (a.positions[r] < 0) continue;
      first = std::min<int64_t>(first, first_visible(a.positions[r], a.window));
      last = std::max<int64_t>(last, a.positions[r]);
    }
    if (last < 0) continue;
    if (last >= a.block_tables.cols * kKvBlock)
      return invalid_argument("attention: positions: expected below {} (blocks of S = {}), got {}",
                              a.block_tables.cols * kKvBlock, i, last);
    for (int64_t b = first / kKvBlock; b <= last / kKvBlock; ++b) {
      const int32_t block = a.block_tables.row(i)[b];
      if (block < 0 || block >= a.cache.blocks)
        return invalid_argument(
            "attention: block_tables: S = {}, entry {}: expected in [0, {}), "
            "got {}",
            i, b, a.cache.blocks, block);
    }
  }
  return ok_status();
}

Status check(const ExecContext& context, const AttentionArgs& a) {
  const int64_t g = a.cache.kv_heads, c = a.cache.head_size, h = a.heads;
  if (a.cache.dtype != DType::kF32 && a.cache.dtype != DType::kBF16)
    return unimplemented("attention: cache: dtype: expected F32 or BF16, got {}",
                         dtype_name(a.cache.dtype));
  if (h < 1 || g < 1 || c < 1 || h % g != 0)
    return invalid_argument(
        "attention: expected H a multiple of G and C >= 1, got H = {}, G = {}, "
        "C = {}",
        h, g, c);
  if (a.q.cols != h * c || a.out.cols != h * c || a.out.rows != a.q.rows)
    return invalid_argument(
        "attention: q, out: expected [T, H*C] = [{}, {}], got [{}, {}] and "
        "[{}, {}]",
        a.q.rows, h * c, a.q.rows, a.q.cols, a.out.rows, a.out.cols);
  if (a.q.stride < a.q.cols || a.out.stride < a.out.cols)
    return invalid_argument("attention: row stride: expected at least H*C = {}, got {} and {}",
                            h * c, a.q.stride, a.out.stride);
  if (static_cast<int64_t>(a.positions.size()) != a.q.rows)
    return invalid_argument("attention: positions: expected T = {}, got {}", a.q.rows,
                            a.positions.size());
  if (a.window < 0 || !(a.softcap >= 0))
    return invalid_argument("attention: window and softcap: expected >= 0, got {} and {}", a.window,
                            a.softcap);
  if (views_overlap<const float>(a.q, a.out))
    return invalid_argument("attention: out: must not alias q");
  if (a.q.rows > 0 && (a.q.data == nullptr || a.out.data == nullptr || a.cache.data == nullptr))
    return invalid_argument("attention: q, out or cache: is missing");
  const int64_t s = static_cast<int64_t>(a.query_starts.size()) - 1;
  if (s < 0) return invalid_argument("attention: query_starts: expected [S+1], got nothing");
  if (a.block_tables.rows != s || a.block_tables.stride < a.block_tables.cols)
    return invalid_argument("attention: block_tables: expected S = {} rows, got {}", s,
                            a.block_tables.rows);
  return on_host(context) ? check_sequences(a) : ok_status();
}

AttentionShape shape_of(const ExecContext& context, const AttentionArgs& args) {
  AttentionShape shape;
  shape.q = args.q.data;
  shape.q_stride = args.q.stride;
  shape.cache = args.cache.data;
  shape.heads = args.heads;
  shape.kv_heads = args.cache.kv_heads;
  shape.head_size = args.cache.head_size;
  shape.scale = args.scale;
  shape.softcap = args.softcap;
  shape.window = args.window;
  shape.sinks = args.sinks;
  shape.positions = args.positions.data();
  shape.out = args.out.data;
  shape.out_stride = args.out.stride;
  shape.rows = args.q.rows;
  shape.sequences = args.block_tables.rows;
  shape.query_starts = args.query_starts.data();
  shape.block_tables = args.block_tables.data;
  shape.table_stride = args.block_tables.stride;
  shape.stream = context.stream;
  return shape;
}

// The splits that a row may see: an upper bound that reads no position.
int64_t most_splits(const AttentionArgs& a) {
  const int64_t all = ceil_div(a.block_tables.cols * kKvBlock, kAttentionSplit);
  if (a.window <= 0) return all;
  return std::min(all, ceil_div(a.window - 1, kAttentionSplit) + 1);
}

// One launch for everything, or, where that would leave most of a GPU idle, rounds of as many
// splits as the workspace holds and their merge. Nothing here depends on what the device holds.
void run_on_gpu(const ExecContext& context, const AttentionArgs& args, AttentionKernel* run,
                Workspace workspace) {
  const AttentionShape shape = shape_of(context, args);
  AttentionTask task;
  const int64_t group = args.heads / args.cache.kv_heads, splits = most_splits(args);
  const int64_t blocks = shape.rows * shape.kv_heads * ceil_div(group, kAttentionTile);
  const int64_t floats = shape.rows * shape.heads * (shape.head_size + 2);
  const int64_t left = static_cast<int64_t>(workspace.bytes / sizeof(float)) - floats;
  const int64_t wave = std::min(splits, left / floats);
  if (blocks >= kEnoughBlocks || splits < kMinimumSplits || wave < kMinimumSplits)
    return run(shape, task);
  task.state = reinterpret_cast<float*>(workspace.data);
  task.partial = task.state + floats;
  for (int64_t from = 0; from < splits; from += wave) {
    task.split = from;
    task.splits = std::min(wave, splits - from);
    task.first = from == 0;
    task.last = from + task.splits == splits;
    task.phase = AttentionTask::Phase::kPartial;
    run(shape, task);
    task.phase = AttentionTask::Phase::kMerge;
    run(shape, task);
  }
}

// One call's plan on the CPU: scratch, and the two ways to share the work out.
class Plan {
 public:
  Plan(const ExecContext& context, const AttentionArgs& args, AttentionKernel* run)
      : context_(context),
        args_(args),
        run_(run),
        c_(args.cache.head_size),
        group_(args.heads / args.cache.kv_heads),
        rows_(args.query_starts.back()),
        shape_(shape_of(context, args)) {}

  int64_t workers() const { return context_.pool != nullptr ? context_.pool->size() : 1; }
  int64_t scratch_floats() const {
    return attention_scratch_floats(std::max(kAttentionTaskRows, group_), c_);
  }
  bool take(Workspace workspace) {
    WorkspaceCarver carver(workspace);
    scratch_ = carver.take<float>(workers() * scratch_floats());
    state_ = carver.take<float>(args_.heads * (c_ + 2));
    partial_ = carver.take<float>(2 * workers() * args_.heads * (c_ + 2));
    return scratch_ != nullptr && state_ != nullptr && partial_ != nullptr;
  }

  // Blocks of rows times kv heads, the last blocks (the longest contexts) first.
  void run_whole() const {
    const int64_t t = rows_, g = shape_.kv_heads;
    int64_t block = std::clamp<int64_t>(kAttentionTaskRows / group_, 1, kRowBlock);
    // Smaller blocks rather than idle workers; the result does not depend on the blocks.
    while (block > 1 && ceil_div(t, block) * g < 4 * workers()) block = ceil_div(block, 2);
    const int64_t blocks = ceil_div(t, block);
    for_each(blocks * g, [&](int64_t i, int worker) {
      const int64_t begin = (blocks - 1 - i / g) * block, end = std::min(begin + block, t);
      run_rows(begin, end, i % g, worker);
    });
  }

  // Worth it when there are too few (row, kv head) pairs to keep all workers busy.
  bool shares_splits(const Kernel<AttentionKernel>& kernel) const {
    const int64_t pairs = rows_ * shape_.kv_heads;
    return kernel.isa != Isa::kReference && workers() > 1 && pairs < 4 * workers() &&
           pairs % workers() != 0;
  }
  void zero_the_rest() const {
    for (int64_t t = rows_; t < args_.q.rows; ++t)
      std::fill_n(args_.out.row(t), args_.out.cols, 0.0f);
  }
  void run_splits() const {
    for (int64_t s = 0; s + 1 < static_cast<int64_t>(args_.query_starts.size()); ++s)
      for (int64_t t = args_.query_starts[s]; t < args_.query_starts[s + 1]; ++t) run_row(s, t);
  }

 private:
  void for_each(int64_t n, const std::function<void(int64_t, int)>& body) const {
    if (context_.pool != nullptr) return context_.pool->parallel_for(n, 1, body);
    const ScopedFloatEnv env;
    for (int64_t i = 0; i < n; ++i) body(i, 0);
  }

  AttentionTask task_of(int64_t sequence, int64_t begin, int64_t end, int64_t g, int worker) const {
    AttentionTask task;
    task.row_begin = begin;
    task.row_end = end;
    task.kv_head = g;
    task.blocks = args_.block_tables.row(sequence);
    task.scratch = scratch_ + worker * scratch_floats();
    return task;
  }

  // Rows [begin, end) may belong to several sequences.
  void run_rows(int64_t begin, int64_t end, int64_t g, int worker) const {
    const auto starts = args_.query_starts;
    int64_t s = std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin() - 1;
    while (begin < end) {
      while (starts[s + 1] <= begin) ++s;
      const int64_t stop = std::min<int64_t>(end, starts[s + 1]);
      run_(shape_, task_of(s, begin, stop, g, worker));
      begin = stop;
    }
  }

  // One row: rounds of as many splits as there are workers for, merged in order after each.
  void run_row(int64_t s, int64_t t) const {
    const int64_t p = shape_.positions[t], g = shape_.kv_heads;
    const int64_t first = first_visible(p, shape_.window) / kAttentionSplit;
    const int64_t end = p < 0 ? first : p / kAttentionSplit + 1;
    if (end - first < kMinimumSplits) {
      for_each(g, [&](int64_t i, int worker) { run_(shape_, task_of(s, t, t + 1, i, worker)); });
      return;
    }
    const int64_t wave = std::max<int64_t>(1, 2 * workers() / g);
    const int64_t row_floats = group_ * (c_ + 2);
    for (int64_t from = first; from < end; from += wave) {
      const int64_t splits = std::min(wave, end - from);
      for_each(splits * g, [&](int64_t i, int worker) {
        AttentionTask task = task_of(s, t, t + 1, i % g, worker);
        task.phase = AttentionTask::Phase::kPartial;
        task.split = from + i / g;
        task.partial = partial_ + i * row_floats;
        run_(shape_, task);
      });
      for_each(g, [&](int64_t i, int worker) {
        AttentionTask task = task_of(s, t, t + 1, i, worker);
        task.phase = AttentionTask::Phase::kMerge;
        task.partial = partial_ + i * row_floats;
        task.partial_stride = g * row_floats;
        task.state = state_ + i * row_floats;
        task.splits = splits;
        task.first = from == first;
        task.last = from + splits == end;
        run_(shape_, task);
      });
    }
  }

  const ExecContext& context_;
  const AttentionArgs& args_;
  AttentionKernel* run_;
  int64_t c_, group_;
  int64_t rows_;  // that belong to a sequence
  AttentionShape shape_;
  float *scratch_ = nullptr, *state_ = nullptr, *partial_ = nullptr;
};

}  // namespace

std::span<const Kernel<AttentionKernel>> attention_kernels() {
  return kKernels;
}

size_t attention_workspace_bytes(int threads, int64_t max_heads, int64_t max_head_size) {
  const int64_t rows = std::max(kAttentionTaskRows, max_heads), c = max_head_size;
  const auto bytes = [](int64_t floats) {
    return WorkspaceCarver::padded(static_cast<size_t>(floats) * sizeof(float));
  };
  return bytes(threads * attention_scratch_floats(rows, c)) + bytes(max_heads * (c + 2)) +
         bytes(2 * threads * max_heads * (c + 2));
}

size_t attention_split_workspace_bytes(int64_t rows, int64_t heads, int64_t head_size,
                                       int64_t splits) {
  return static_cast<size_t>(rows * heads * (head_size + 2) * (splits + 1)) * sizeof(float);
}

Status attention(const ExecContext& context, const AttentionArgs& args, Workspace workspace) {
  SLUICE_RETURN_IF_ERROR(check(context, args));
  if (args.q.rows == 0) return ok_status();
  // The vector kernels take heads of whole vectors; any other size is the reference's.
  const int64_t c = args.cache.head_size;
  const bool any = is_cuda(context.isa) || (c % 16 == 0 && c <= 512);
  const Isa isa = any ? context.isa : Isa::kReference;
  const char* in = args.cache.dtype == DType::kF32 ? "f32" : "bf16";
  const auto* kernel = select_kernel(attention_kernels(), isa, in, "none", "split128");
  if (kernel == nullptr) return no_kernel("attention", context.isa);
  if (is_cuda(context.isa)) {
    const ScopedFloatEnv env;
    run_on_gpu(context, args, kernel->run, workspace);
    return ok_status();
  }
  Plan plan(context, args, kernel->run);
  if (!plan.take(workspace)) {
    const int threads = static_cast<int>(plan.workers());
    return invalid_argument("attention: workspace: expected {} bytes for H = {}, C = {}, got {}",
                            attention_workspace_bytes(threads, args.heads, c), args.heads, c,
                            workspace.bytes);
  }
  if (plan.shares_splits(*kernel))
    plan.run_splits();
  else
    plan.run_whole();
  plan.zero_the_rest();
  return ok_status();
}

}  // namespace sluice
