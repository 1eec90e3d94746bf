#include "cli/synthetic_experts.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "base/topology.h"
#include "ops/matmul/pack.h"
#include "ops/moe_route/kernels.h"

namespace sluice {
namespace {

constexpr ExpertShape kShapes[] = {
    {"qwen3-30b-a3b", 2048, 768, 128, 8, ActivationKind::kSilu, false},
    {"gemma4-26b-a4b", 2816, 704, 128, 8, ActivationKind::kGeluTanh, false},
    {"gpt-oss-20b", 2880, 2880, 32, 4, ActivationKind::kSwigluOai, true},
    {"gpt-oss-120b", 2880, 2880, 128, 4, ActivationKind::kSwigluOai, true},
    {"qwen3-235b-a22b", 4096, 1536, 128, 8, ActivationKind::kSilu, false}};

constexpr int64_t kContents = 4;

// Times do not depend on how well the codes are chosen.
constexpr IntPacking kFast = {.rounding = IntRounding::kNearest};

template <WeightFormat format>
Result<PackedMatrix> pack_float_glu(Device& device, const float* gate, const float* up,
                                    int64_t width, int64_t d) {
  return sluice::pack_glu(device, stored_rows(gate, width, d), stored_rows(up, width, d), format,
                          kFast);
}
template <WeightFormat format>
Result<PackedMatrix> pack_float(Device& device, const float* w, int64_t n, int64_t k) {
  return pack_matrix(device, stored_rows(w, n, k), format, kFast);
}

template <WeightFormat format>
constexpr SyntheticFormat row(const char* name, Arith arith) {
  return {name, arith, format, pack_float_glu<format>, pack_float<format>};
}
constexpr SyntheticFormat kFormats[] = {row<WeightFormat::kF32>("f32", Arith::kF32Fma),
                                        row<WeightFormat::kBF16>("bf16", Arith::kBf16Tile),
                                        row<WeightFormat::kMXFP4>("mxfp4", Arith::kBf16Tile),
                                        row<WeightFormat::kFP8>("fp8", Arith::kBf16Tile),
                                        row<WeightFormat::kInt8>("int8", Arith::kInt16),
                                        row<WeightFormat::kInt4>("int4", Arith::kInt),
                                        row<WeightFormat::kQ8_0>("q8_0", Arith::kA8G32),
                                        row<WeightFormat::kQ4_0>("q4_0", Arith::kA8G32),
                                        row<WeightFormat::kQ5_0>("q5_0", Arith::kA8G32),
                                        row<WeightFormat::kQ5_1>("q5_1", Arith::kA8G32),
                                        row<WeightFormat::kQ4_K>("q4_k", Arith::kA8G32),
                                        row<WeightFormat::kQ5_K>("q5_k", Arith::kA8G32),
                                        row<WeightFormat::kQ6_K>("q6_k", Arith::kA8G32),
                                        row<WeightFormat::kIQ4_NL>("iq4_nl", Arith::kA8G32)};

void fill_normal(std::vector<float>& out, float deviation, uint64_t seed) {
  std::mt19937_64 random(seed);
  // The sum of four 16-bit uniforms is normal enough here, and the same everywhere.
  for (float& v : out) {
    const uint64_t r = random();
    const int64_t sum =
        static_cast<int64_t>((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48)) -
        2 * 65535;
    v = static_cast<float>(sum) * (deviation / 37837.0f);
  }
}

// gate_up and down of each content.
Result<std::vector<PackedMatrix>> pack_contents(Device& device, ThreadPool& pool,
                                                const ExpertShape& shape,
                                                const SyntheticFormat& format, uint64_t seed) {
  const int64_t contents = std::min(kContents, shape.experts);
  std::vector<PackedMatrix> made(static_cast<size_t>(2 * contents));
  std::vector<Status> status(static_cast<size_t>(contents));
  pool.parallel_for(contents, 1, [&](int64_t c, int) {
    const auto i = static_cast<size_t>(c);
    const auto weights = static_cast<size_t>(shape.d * shape.width);
    std::vector<float> gate(weights), up(weights), down(weights);
    const auto base = seed + 1000 * static_cast<uint64_t>(c);
    fill_normal(gate, 1.0f / std::sqrt(static_cast<float>(shape.d)), base + 1);
    fill_normal(up, 1.0f / std::sqrt(static_cast<float>(shape.d)), base + 2);
    fill_normal(down, 1.0f / std::sqrt(static_cast<float>(shape.width)), base + 3);
    Result<PackedMatrix> a = format.pack_glu(device, gate.data(), up.data(), shape.width, shape.d);
    Result<PackedMatrix> b = format.pack(device, down.data(), shape.d, shape.width);
    status[i] = !a.ok() ? a.status() : b.status();
    if (!status[i].ok()) return;
    made[2 * i] = std::move(a).value();
    made[2 * i + 1] = std::move(b).value();
  });
  for (const Status& s : status) SLUICE_RETURN_IF_ERROR(s);
  return made;
}

// How many copies of a layer calls take turns in. Asked before anything is made, which takes the
// weights of its contents as f32 besides.
Result<int64_t> copies_that_fit(const ExpertShape& shape, size_t expert_bytes,
                                double rotate_bytes) {
  const double limit = static_cast<double>(memory_limit_bytes()) / 2;
  const double layer = static_cast<double>(expert_bytes) * static_cast<double>(shape.experts);
  const double f32 = 12.0 * static_cast<double>(shape.d * shape.width) *
                     static_cast<double>(std::min(kContents, shape.experts));
  if (std::max(layer, f32) > limit)
    return resource_exhausted(
        "one layer takes {:.1f} GB, half of this machine's memory is {:.1f} GB; "
        "give fewer or smaller experts by --shape D,I,E,K",
        std::max(layer, f32) / 1e9, limit / 1e9);
  const auto wanted = static_cast<int64_t>(std::ceil(rotate_bytes / layer));
  return std::max<int64_t>(1, std::min(wanted, static_cast<int64_t>(limit / layer)));
}

}  // namespace

std::span<const ExpertShape> expert_shapes() {
  return kShapes;
}
std::span<const SyntheticFormat> synthetic_formats() {
  return kFormats;
}

Result<ExpertShape> parse_expert_shape(const std::string& text) {
  for (const ExpertShape& s : kShapes)
    if (s.name == text) return s;
  std::array<int64_t, 4> v{};
  const char *at = text.data(), *const end = at + text.size();
  for (size_t i = 0; i < v.size(); ++i) {
    const auto [next, error] = std::from_chars(at, end, v[i]);
    const bool last = i + 1 == v.size();
    if (error != std::errc() || v[i] < 1 || v[i] > (1 << 20) ||
        (last ? next != end : next == end || *next != ','))
      return invalid_argument("shape: expected a known name or D,I,E,K, got \"{}\"", text);
    at = next + 1;
  }
  if (v[2] > kMaxExperts)
    return invalid_argument("shape: E: expected at most {}, got {}", kMaxExperts, v[2]);
  if (v[3] > kMaxExpertsPerToken)
    return invalid_argument("shape: K: expected at most {}, got {}", kMaxExpertsPerToken, v[3]);
  if (v[3] > v[2]) return invalid_argument("shape: K: expected at most E = {}, got {}", v[2], v[3]);
  return ExpertShape{"custom", v[0], v[1], v[2], v[3]};
}

Result<std::unique_ptr<SyntheticExperts>> SyntheticExperts::create(Device& device, ThreadPool& pool,
                                                                   const ExpertShape& shape,
                                                                   const SyntheticFormat& format,
                                                                   double rotate_bytes,
                                                                   uint64_t seed) {
  auto layer = std::make_unique<SyntheticExperts>();
  layer->shape_ = shape;
  const size_t bytes =
      packed_bytes(format.format, WeightLayout::kGluPanel16, 2 * shape.width, shape.d) +
      packed_bytes(format.format, WeightLayout::kPanel16, shape.d, shape.width);
  layer->expert_bytes_ = bytes;
  SLUICE_ASSIGN_OR_RETURN(layer->sets_, copies_that_fit(shape, bytes, rotate_bytes));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<PackedMatrix> made,
                          pack_contents(device, pool, shape, format, seed));
  const size_t contents = made.size() / 2;
  const int64_t experts = layer->sets_ * shape.experts;
  // A piece more than there is, so that the probe of the read rate may take whole pieces.
  SLUICE_ASSIGN_OR_RETURN(
      layer->storage_,
      device.allocate(static_cast<size_t>(experts) * bytes + (size_t{4} << 20), "bench: experts"));
  layer->matrices_.resize(static_cast<size_t>(2 * experts));
  pool.parallel_for(experts, 1, [&](int64_t e, int) {
    std::byte* at = layer->storage_.data() + static_cast<size_t>(e) * bytes;
    for (size_t part = 0; part < 2; ++part) {
      const PackedMatrix& from = made[2 * (static_cast<size_t>(e) % contents) + part];
      std::memcpy(at, from.data, from.bytes);
      PackedMatrix& m = layer->matrices_[2 * static_cast<size_t>(e) + part];
      m = from;
      m.data = at;
      m.owner = nullptr;
      at += from.bytes;
    }
  });
  for (size_t e = 0; e < static_cast<size_t>(experts); ++e) {
    layer->up_.push_back(&layer->matrices_[2 * e]);
    layer->down_.push_back(&layer->matrices_[2 * e + 1]);
  }
  if (shape.bias) {
    layer->bias_.resize(static_cast<size_t>(std::max(2 * shape.width, shape.d)));
    fill_normal(layer->bias_, 0.1f, seed + 4);
    layer->up_bias_.assign(static_cast<size_t>(shape.experts), layer->bias_.data());
    layer->down_bias_ = layer->up_bias_;
  }
  return layer;
}

ExpertWeights SyntheticExperts::weights(int64_t set) const {
  const auto first = static_cast<size_t>(set * shape_.experts);
  const auto count = static_cast<size_t>(shape_.experts);
  ExpertWeights w;
  w.gate_up = std::span(up_).subspan(first, count);
  w.down = std::span(down_).subspan(first, count);
  w.gate_up_bias = up_bias_;
  w.down_bias = down_bias_;
  w.width = shape_.width;
  w.activation.kind = shape_.activation;
  return w;
}

std::vector<int32_t> draw_experts(const ExpertShape& shape, ExpertRouting routing, int64_t tokens,
                                  uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto e = static_cast<size_t>(shape.experts), k = static_cast<size_t>(shape.k);
  std::vector<double> weight(e, 1.0);
  if (routing == ExpertRouting::kZipf)
    // Ranks by a fixed odd stride: neighbours in memory are not neighbours in rank.
    for (size_t i = 0; i < e; ++i) weight[i] = 1.0 / static_cast<double>(1 + i * 61 % e);
  std::vector<int32_t> ids;
  std::vector<double> left;
  for (int64_t t = 0; t < tokens; ++t) {
    if (routing == ExpertRouting::kOne && t > 0) {
      for (size_t j = 0; j < k; ++j) ids.push_back(ids[j]);
      continue;
    }
    left = weight;
    for (size_t j = 0; j < k; ++j) {
      double at = std::accumulate(left.begin(), left.end(), 0.0) *
                  (static_cast<double>(random() >> 11) * 0x1p-53);
      size_t pick = e;
      for (size_t i = 0; i < e; ++i) {
        if (left[i] == 0) continue;
        pick = i;  // the last one that is left, should rounding run past the end
        if ((at -= left[i]) < 0) break;
      }
      left[pick] = 0;
      ids.push_back(static_cast<int32_t>(pick));
    }
  }
  return ids;
}

}  // namespace sluice
