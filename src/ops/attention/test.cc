// attention: every kernel row against the reference bit for bit, the reference against f64, and
// the invariances (chunks, batch, threads, pages), always in a pool whose unused slots are NaN.
#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/attention/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

struct Sequence {
  int64_t context = 0, tokens = 1;  // cached before, new
};
struct Problem {
  int64_t heads = 4, kv_heads = 2, head_size = 32;
  int64_t window = 0;
  float softcap = 0.0f;
  bool sinks = false;
  std::vector<Sequence> sequences = {{0, 5}};
  DType dtype = DType::kF32;
};

// Keys, values and queries of every position of every sequence, however they are cut into steps.
struct World {
  World(const Problem& problem, uint64_t seed) : p(problem), random(seed) {
    for (const Sequence& s : p.sequences) {
      const int64_t n = s.context + s.tokens;
      keys.push_back(draw(n * p.kv_heads * p.head_size));
      values.push_back(draw(n * p.kv_heads * p.head_size));
      queries.push_back(draw(n * p.heads * p.head_size));
    }
    for (int64_t h = 0; h < p.heads; ++h) sinks.push_back(random.normal());
  }
  std::vector<float> draw(int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = random.normal();
    return v;
  }
  float rounded(float v) const { return p.dtype == DType::kF32 ? v : round_to_bf16(v); }
  int64_t first_visible(int64_t position) const {
    return p.window > 0 ? std::max<int64_t>(0, position - p.window + 1) : 0;
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(p.head_size)); }

  Problem p;
  Random random;
  std::vector<std::vector<float>> keys, values, queries;
  std::vector<float> sinks;
};

// A step: positions [begin, end) of each sequence are its rows.
struct Step {
  std::vector<std::pair<int64_t, int64_t>> ranges;
};
Step whole(const Problem& p) {
  Step s;
  for (const Sequence& q : p.sequences) s.ranges.emplace_back(q.context, q.context + q.tokens);
  return s;
}

// The pool as it is when a step's attention runs: nothing beyond the step's last positions is
// written, everything unwritten is NaN, blocks are scattered, and the entries behind every window
// name blocks that do not exist.
struct Pool {
  Pool(const World& w, const Step& step, Random& random) {
    const Problem& p = w.p;
    const size_t sequences = step.ranges.size();
    int64_t most = 1, total = 3;
    for (const auto& [begin, end] : step.ranges) {
      most = std::max(most, ceil_div(end, kKvBlock));
      total += ceil_div(end, kKvBlock);
    }
    std::vector<int32_t> free(static_cast<size_t>(total));
    std::iota(free.begin(), free.end(), 0);
    for (size_t i = free.size(); i > 1; --i)
      std::swap(free[i - 1], free[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
    view.dtype = p.dtype;
    view.blocks = total;
    view.kv_heads = p.kv_heads;
    view.head_size = p.head_size;
    const size_t elements = static_cast<size_t>(total * view.block_elements());
    f32.assign(p.dtype == DType::kF32 ? elements : 0, NAN);
    b16.assign(p.dtype == DType::kBF16 ? elements : 0, bf16(NAN));
    view.data = p.dtype == DType::kF32 ? static_cast<void*>(f32.data()) : b16.data();
    table.assign(sequences * static_cast<size_t>(most), -77);
    tables = {table.data(), static_cast<int64_t>(sequences), most};
    for (size_t s = 0; s < sequences; ++s) {
      const auto [begin, end] = step.ranges[s];
      if (begin == end) continue;
      const int64_t first = w.first_visible(begin) / kKvBlock;
      for (int64_t b = first; b * kKvBlock < end; ++b) {
        table[s * static_cast<size_t>(most) + static_cast<size_t>(b)] = free.back();
        free.pop_back();
      }
      for (int64_t j = w.first_visible(begin); j < end; ++j) write(w, s, j);
    }
  }
  void write(const World& w, size_t s, int64_t j) {
    const int64_t block = tables.row(static_cast<int64_t>(s))[j / kKvBlock], at = j % kKvBlock;
    for (int64_t g = 0; g < view.kv_heads; ++g) {
      for (int64_t c = 0; c < view.head_size; ++c) {
        const size_t from = static_cast<size_t>((j * view.kv_heads + g) * view.head_size + c);
        set(view.key(block, g) + c * kKvBlock + at, w.keys[s][from]);
        set(view.value(block, g) + at * view.head_size + c, w.values[s][from]);
      }
    }
  }
  void set(int64_t at, float v) {
    if (f32.empty())
      b16[static_cast<size_t>(at)] = bf16(v);
    else
      f32[static_cast<size_t>(at)] = v;
  }
  KvCacheView view;
  std::vector<float> f32;
  std::vector<bf16> b16;
  std::vector<int32_t> table;
  MatrixView<const int32_t> tables;
};

constexpr size_t kEnough = ~size_t{0};

// The step's output rows, all sequences one after the other.
Matrix run(const Context& context, const World& w, const Step& step, uint64_t seed = 99,
           int64_t pad = 0, int64_t offset = 0, size_t workspace = kEnough) {
  Random random(seed);
  Pool pool(w, step, random);
  const Problem& p = w.p;
  const int64_t width = p.heads * p.head_size;
  std::vector<int32_t> starts = {0}, positions;
  for (const auto& [begin, end] : step.ranges) {
    for (int64_t j = begin; j < end; ++j) positions.push_back(static_cast<int32_t>(j));
    starts.push_back(static_cast<int32_t>(positions.size()));
  }
  const int64_t t = static_cast<int64_t>(positions.size());
  Matrix q(t, width, pad, offset), out(t, width, pad, offset);
  int64_t row = 0;
  for (size_t s = 0; s < step.ranges.size(); ++s)
    for (int64_t j = step.ranges[s].first; j < step.ranges[s].second; ++j, ++row)
      for (int64_t c = 0; c < width; ++c)
        q.at(row, c) = w.queries[s][static_cast<size_t>(j * width + c)];
  AttentionArgs args;
  args.q = q.view();
  args.cache = pool.view;
  args.heads = p.heads;
  args.scale = w.scale();
  args.window = p.window;
  args.softcap = p.softcap;
  args.sinks = p.sinks ? w.sinks.data() : nullptr;
  args.query_starts = starts;
  args.positions = positions;
  args.block_tables = pool.tables;
  args.out = out.view();
  const int threads = context.pool != nullptr ? context.pool->size() : 1;
  Scratch scratch(workspace != kEnough ? workspace
                                       : attention_workspace_bytes(threads, p.heads, p.head_size));
  const Status status = context.finish(attention(context.exec, args, scratch.workspace()));
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(out.guards_hold());
  return out;
}

std::vector<Problem> problems(DType dtype) {
  std::vector<Problem> all;
  const auto add = [&](int64_t h, int64_t g, int64_t c, std::vector<Sequence> sequences,
                       int64_t window = 0, float softcap = 0, bool sinks = false) {
    all.push_back({h, g, c, window, softcap, sinks, std::move(sequences), dtype});
  };
  add(64, 8, 64, {{0, 9}, {130, 3}}, 128, 0, true);  // gpt-oss, sliding
  add(64, 8, 64, {{0, 1}, {260, 1}}, 0, 0, true);    // gpt-oss, full
  add(32, 4, 128, {{0, 17}, {127, 2}, {255, 1}});    // Qwen3
  add(16, 8, 256, {{0, 5}, {140, 3}}, 100);          // Gemma 4, sliding
  add(16, 2, 512, {{0, 5}, {128, 2}});               // Gemma 4, full
  add(4, 2, 16, {{0, 300}, {0, 1}, {511, 40}});
  add(4, 2, 16, {{0, 300}, {700, 40}}, 129, 5.0f, true);
  add(6, 2, 32, {{0, 33}, {100, 130}}, 1);
  add(6, 2, 32, {{15, 33}, {0, 0}, {112, 17}}, 16, 30.0f);
  add(5, 1, 80, {{0, 40}, {250, 8}}, 17, 0, true);
  add(7, 7, 48, {{0, 20}, {120, 20}}, 127);
  add(14, 2, 96, {{0, 12}, {383, 3}}, 1000);
  add(3, 3, 192, {{60, 70}}, 0, 8.0f);
  return all;
}

// The pieces of a valid call, for breaking one at a time. Every value of the cache is 1.
struct Call {
  explicit Call(Isa isa = Isa::kReference, int threads = 0, DType dtype = DType::kF32)
      : context(isa, threads), q(2, 32), out(2, 32), scratch(attention_workspace_bytes(2, 2, 16)) {
    const size_t elements = static_cast<size_t>(4 * 2 * 16 * kKvBlock);
    pool.assign(dtype == DType::kF32 ? elements : 0, 1.0f);
    narrow.assign(elements - pool.size(), bf16(1.0f));
    void* data = pool.empty() ? static_cast<void*>(narrow.data()) : pool.data();
    args.cache = {dtype, data, 4, 1, 16};
    args.q = q.view();
    args.out = out.view();
    args.heads = 2;
    args.query_starts = {starts.data(), 2};
    args.positions = positions;
    args.block_tables = {table.data(), 1, 2};
  }
  std::string failure() {
    const Status s = context.finish(attention(context.exec, args, scratch.workspace()));
    return s.ok() ? "" : s.message();
  }
  Context context;
  std::vector<float> pool;
  std::vector<bf16> narrow;
  std::vector<int32_t> starts = {0, 2, 2}, positions = {3, 4}, table = {1, 2, 1, 2};
  Matrix q, out;
  Scratch scratch;
  AttentionArgs args;
};

using Row = Kernel<AttentionKernel>;
class AttentionRow : public ::testing::TestWithParam<Row> {};

DType cache_dtype(const Row& row) {
  return row.in == "f32" ? DType::kF32 : DType::kBF16;
}

TEST_P(AttentionRow, EqualsTheReferenceBitForBit) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context reference(Isa::kReference), row(GetParam().isa), threaded(GetParam().isa, 2);
  uint64_t seed = 1;
  for (const Problem& p : problems(cache_dtype(GetParam()))) {
    const World w(p, ++seed);
    Matrix want = run(reference, w, whole(p));
    for (const int64_t offset : {0, 1, 5}) {
      Matrix got = run(row, w, whole(p), seed + 50, offset * 3, offset);
      EXPECT_TRUE(same_bits(got.view(), want.view()))
          << "problem " << seed << ", offset " << offset;
    }
    Matrix got = run(threaded, w, whole(p));
    EXPECT_TRUE(same_bits(got.view(), want.view())) << "problem " << seed << ", two workers";
  }
}

TEST_P(AttentionRow, SharingSplitsAmongWorkersChangesNothing) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context reference(Isa::kReference);
  for (const int64_t g : {1, 3}) {
    for (const int64_t window : {0, 700}) {
      Problem p{3 * g, g, 32, window, 0, window == 0, {{1500, 1}}, cache_dtype(GetParam())};
      const World w(p, 7);
      Matrix want = run(reference, w, whole(p));
      for (const int threads : {1, 2, 5}) {
        Matrix got = run(Context(GetParam().isa, threads), w, whole(p));
        EXPECT_TRUE(same_bits(got.view(), want.view())) << g << " heads, " << threads << " workers";
      }
    }
  }
}

// Every chunking of a prompt, and every batch that a sequence is in, gives the same bits.
TEST_P(AttentionRow, ChunksAndBatchChangeNothing) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context context(GetParam().isa, 2);
  for (const int64_t window : {0, 70}) {
    Problem p{8, 2, 32, window, 0, true, {{0, 200}, {0, 90}}, cache_dtype(GetParam())};
    const World w(p, 11);
    Matrix batch = run(context, w, whole(p));
    for (const int64_t chunk : {1, 7, 64, 200}) {
      int64_t row = 0;
      for (size_t s = 0; s < p.sequences.size(); ++s) {
        const int64_t n = p.sequences[s].tokens;
        for (int64_t at = 0; at < n; at += chunk) {
          Step step;
          step.ranges.resize(p.sequences.size());
          step.ranges[s] = {at, std::min(at + chunk, n)};
          Matrix got = run(context, w, step, static_cast<uint64_t>(at) + 3);
          for (int64_t r = 0; r < got.rows(); ++r, ++row)
            for (int64_t c = 0; c < got.cols(); ++c)
              ASSERT_TRUE(same_bits(got.at(r, c), batch.at(row, c)))
                  << "chunk " << chunk << ", sequence " << s << ", row " << at + r;
        }
      }
    }
  }
}

// However many splits a round of a CUDA row has room for: none, a few rounds, one.
class AttentionGpuRow : public AttentionRow {};

TEST_P(AttentionGpuRow, WorkspaceChangesNothing) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context reference(Isa::kReference), row(GetParam().isa);
  for (const int64_t window : {0, 700}) {
    Problem p{6,
              2,
              80,
              window,
              20.0f,
              window == 0,
              {{1500, 2}, {0, 1}, {900, 1}},
              cache_dtype(GetParam())};
    const World w(p, 13);
    Matrix want = run(reference, w, whole(p));
    for (const int64_t splits : {-1, 3, 4, 5, 11, 12, 100}) {
      const size_t bytes = attention_split_workspace_bytes(4, p.heads, p.head_size, splits);
      Matrix got = run(row, w, whole(p), 17, 0, 0, bytes);
      EXPECT_TRUE(same_bits(got.view(), want.view())) << splits << " splits";
    }
  }
}

// Rows beyond the last sequence, whose positions are not to be read.
TEST_P(AttentionRow, PaddingRowsAreZero) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  for (const int threads : {0, 2}) {
    for (const int32_t rows : {0, 1, 2}) {
      Call call(GetParam().isa, threads, cache_dtype(GetParam()));
      call.starts[1] = call.starts[2] = rows;
      call.args.query_starts = call.starts;
      call.args.block_tables = {call.table.data(), 2, 2};
      for (int32_t t = rows; t < 2; ++t) call.positions[t] = INT32_MAX;
      Random random(1);
      call.out.fill(random);
      ASSERT_EQ(call.failure(), "");
      for (int64_t t = 0; t < 2; ++t)
        for (int64_t c = 0; c < 32; ++c)
          EXPECT_EQ(call.out.at(t, c), t < rows ? 1.0f : 0.0f) << rows << " rows, row " << t;
    }
  }
}

std::vector<Row> gpu_rows() {
  std::vector<Row> rows = test::all_rows(attention_kernels());
  std::erase_if(rows, [](const Row& row) { return !is_cuda(row.isa); });
  return rows;
}

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionRow,
                         ::testing::ValuesIn(test::all_rows(attention_kernels())), test::RowName());
INSTANTIATE_TEST_SUITE_P(Kernels, AttentionGpuRow, ::testing::ValuesIn(gpu_rows()),
                         test::RowName());

// f64 attention of one row and head, and the error that f32 may have there: scores are off by
// sqrt(C) roundings of |q||k|, exponentials by as much relatively, sums by a few roundings more.
struct Exact {
  std::vector<double> out;
  double tolerance = 0;
};
Exact exact(const World& w, size_t s, int64_t position, int64_t h) {
  const Problem& p = w.p;
  const int64_t g = h / (p.heads / p.kv_heads), c_size = p.head_size;
  const float* q = w.queries[s].data() + (position * p.heads + h) * c_size;
  std::vector<double> z;
  double most = p.sinks ? w.sinks[static_cast<size_t>(h)] : -INFINITY, error = 0, v_most = 0;
  for (int64_t j = w.first_visible(position); j <= position; ++j) {
    const float* k = w.keys[s].data() + (j * p.kv_heads + g) * c_size;
    double dot = 0, qq = 0, kk = 0;
    for (int64_t c = 0; c < c_size; ++c) {
      const double key = w.rounded(k[c]);
      dot += q[c] * key, qq += double{q[c]} * q[c], kk += key * key;
    }
    const double scale = w.scale();
    double score = dot * scale;
    error =
        std::max(error, 2 * std::sqrt(static_cast<double>(c_size)) * std::sqrt(qq * kk) * scale);
    if (p.softcap > 0) score = p.softcap * std::tanh(score / p.softcap), error += 8 * p.softcap;
    z.push_back(score);
    most = std::max(most, score);
  }
  double sum = p.sinks ? std::exp(w.sinks[static_cast<size_t>(h)] - most) : 0;
  Exact e;
  e.out.assign(static_cast<size_t>(c_size), 0.0);
  for (size_t i = 0; i < z.size(); ++i) {
    const double weight = std::exp(z[i] - most);
    sum += weight;
    const int64_t j = w.first_visible(position) + static_cast<int64_t>(i);
    const float* v = w.values[s].data() + (j * p.kv_heads + g) * c_size;
    for (int64_t c = 0; c < c_size; ++c) {
      e.out[static_cast<size_t>(c)] += weight * w.rounded(v[c]);
      v_most = std::max(v_most, std::fabs(double{v[c]}));
    }
  }
  for (double& o : e.out) o /= sum;
  e.tolerance = v_most * 0x1p-24 * (2 * error + 4 * std::sqrt(128.0));
  return e;
}

TEST(Attention, ReferenceIsWithinTheBoundOfF64) {
  const Context context(Isa::kReference);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Problem& p : problems(dtype)) {
      const World w(p, 5);
      Matrix got = run(context, w, whole(p));
      int64_t row = 0;
      for (size_t s = 0; s < p.sequences.size(); ++s)
        for (int64_t i = 0; i < p.sequences[s].tokens; ++i, ++row)
          for (int64_t h = 0; h < p.heads; ++h) {
            const Exact want = exact(w, s, p.sequences[s].context + i, h);
            for (int64_t c = 0; c < p.head_size; ++c)
              ASSERT_NEAR(got.at(row, h * p.head_size + c), want.out[static_cast<size_t>(c)],
                          want.tolerance);
          }
    }
  }
}

TEST(Attention, SaysWhatIsWrong) {
  const auto failure = [](auto change) {
    Call call;
    change(call);
    return call.failure();
  };
  EXPECT_EQ(failure([](Call&) {}), "");
  const std::pair<const char*, std::string> cases[] = {
      {"H a multiple of G", failure([](Call& c) { c.args.cache.kv_heads = 3; })},
      {"[T, H*C]", failure([](Call& c) { c.args.out.cols = 16; })},
      {"T = 2, got 1", failure([](Call& c) {
         c.args.positions = {c.positions.data(), 1};
       })},
      {"from 0 to at most T = 2", failure([](Call& c) { c.starts[1] = 3; })},
      {"from 0 to", failure([](Call& c) { c.starts[0] = 1; })},
      {"query_starts: expected [S+1]", failure([](Call& c) { c.args.query_starts = {}; })},
      {"S = 1 rows", failure([](Call& c) { c.args.block_tables.rows = 2; })},
      {"positions: expected below 32", failure([](Call& c) { c.positions[1] = 32; })},
      {"entry 0: expected in [0, 4), got 4", failure([](Call& c) { c.table[0] = 4; })},
      {"got -1", failure([](Call& c) { c.table[0] = -1; })},
      {"must not alias", failure([](Call& c) { c.args.out = c.q.view(); })},
      {"window and softcap", failure([](Call& c) { c.args.window = -1; })},
      {"window and softcap", failure([](Call& c) { c.args.softcap = NAN; })},
      {"dtype", failure([](Call& c) { c.args.cache.dtype = DType::kF16; })},
      {"workspace", failure([](Call& c) { c.scratch = Scratch(100); })},
      {"is missing", failure([](Call& c) { c.args.cache.data = nullptr; })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
}

TEST(Attention, RowThatSeesNothingIsZero) {
  for (const Isa isa : {Isa::kReference, detect_isa()}) {
    const float sinks[2] = {0.5f, -1.0f};
    for (const float* s : {static_cast<const float*>(nullptr), sinks}) {
      Call call;
      call.context.exec.isa = isa;
      call.positions[0] = call.positions[1] = -1;
      call.args.sinks = s;
      Random random(1);
      call.out.fill(random);
      EXPECT_EQ(call.failure(), "");
      for (int64_t c = 0; c < 32; ++c) EXPECT_EQ(call.out.at(1, c), 0.0f);
    }
  }
}

}  // namespace
}  // namespace sluice
