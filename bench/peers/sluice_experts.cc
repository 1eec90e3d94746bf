// Our side: the layer of layer_data.h through the public moe_experts, a co-process (coprocess.h).
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>

#include "coprocess.h"
#include "device/cpu/probe.h"
#include "device/device.h"
#include "formats.h"
#include "ops/moe_experts/moe_experts.h"
#include "rates.h"
#include "sluice_build_id.h"

namespace peers {
namespace {

using namespace sluice;

class Ours final : public Side {
 public:
  std::string load(const Options& options, const Format& format) {
    o_ = options;
    s_ = options.shape;
    arith_ = format.arith;
    pool_ = std::make_unique<ThreadPool>(options.threads);
    device_ = make_cpu_device();
    const Result<Isa> isa = choose_isa();
    if (!isa.ok()) return isa.status().message();
    isa_ = *isa;
    return make_copies(format);
  }

  std::string describe(const Format& format) const {
    std::string features;
    for (const std::string& f : cpu_features()) features += (features.empty() ? "" : " ") + f;
    return "{\"type\": " + quoted(format.name) +
           ", \"buffer\": \"panels of 16 columns\", \"version\": " + quoted(version()) +
           ", \"flags\": " + quoted(format.mode) +
           ", \"isa\": " + quoted(std::string(isa_name(isa_))) +
           ", \"threads\": " + std::to_string(pool_->size()) + ", \"cpu\": " + quoted(cpu_name()) +
           ", \"features\": " + quoted(features) + ", \"unit\": " + quoted(format.unit) +
           ", \"copies\": " + std::to_string(copies()) +
           ", \"expert_bytes\": " + std::to_string(expert_bytes_) + "}";
  }

  std::string prepare(int64_t m) override {
    const size_t bytes = moe_experts_workspace_bytes({m, s_.k, s_.e, s_.d, s_.i, arith_});
    if (bytes <= scratch_.bytes()) return "";
    Result<Buffer> scratch = device_->allocate(bytes, "workspace");
    if (!scratch.ok()) return scratch.status().message();
    scratch_ = std::move(*scratch);
    return "";
  }

  double call(int64_t m, int64_t copy, const float* x, const int32_t* ids, const float* weights,
              float* out) override {
    const auto c = static_cast<size_t>(copy);
    MoeExpertsArgs a;
    a.arith = arith_;
    a.x = {x, m, s_.d};
    a.ids = {ids, static_cast<size_t>(m * s_.k)};
    a.weights = {weights, static_cast<size_t>(m * s_.k)};
    a.k = s_.k;
    a.experts.gate_up = up_pointers_[c];
    a.experts.down = down_pointers_[c];
    if (s_.bias()) {
      a.experts.gate_up_bias = up_bias_pointers_;
      a.experts.down_bias = down_bias_pointers_;
    }
    a.experts.width = s_.i;
    a.experts.activation.kind = s_.glu == Glu::kSilu       ? ActivationKind::kSilu
                                : s_.glu == Glu::kGeluTanh ? ActivationKind::kGeluTanh
                                                           : ActivationKind::kSwigluOai;
    a.then = CombineThen::kStore;
    a.out = {out, m, s_.d};
    const double start = microseconds();
    const Status status = moe_experts(context(), a, {scratch_.data(), scratch_.bytes()});
    const double took = microseconds() - start;
    if (!status.ok()) {
      fail(status.message());
      std::exit(1);
    }
    return took;
  }

  int64_t copies() const override { return static_cast<int64_t>(up_pointers_.size()); }

  std::string command(const std::string& line) override {
    if (line == "probe") return "{\"read_gbs\": " + std::to_string(read_gbs()) + "}";
    if (line == "rates") {
      std::string out;
      for (const auto& [name, gops] : rates(context()))
        out += (out.empty() ? "\"" : ", \"") + name + "\": " + std::to_string(gops);
      return "{" + out + "}";
    }
    return "";
  }

 private:
  static std::string version() { return SLUICE_VERSION " (" SLUICE_BUILD_ID ")"; }
  ExecContext context() { return {device_.get(), nullptr, pool_.get(), isa_}; }

  std::string make_copies(const Format& format) {
    std::vector<PackedMatrix> up(static_cast<size_t>(s_.contents())), down(up.size());
    std::vector<std::string> why(up.size());
    on_all_cores(s_.contents(), [&](int64_t c) {
      const auto u = static_cast<size_t>(c);
      std::vector<float> gate(static_cast<size_t>(s_.d * s_.i)), second(gate);
      fill_matrix(s_, c, Matrix::kGate, gate.data());
      fill_matrix(s_, c, Matrix::kUp, second.data());
      Result<PackedMatrix> a = format.pack_glu(*device_, gate.data(), second.data(), s_.i, s_.d);
      fill_matrix(s_, c, Matrix::kDown, gate.data());
      Result<PackedMatrix> b = format.pack(*device_, gate.data(), s_.d, s_.i);
      if (!a.ok() || !b.ok())
        why[u] = a.ok() ? b.status().message() : a.status().message();
      else
        up[u] = std::move(*a), down[u] = std::move(*b);
    });
    for (const std::string& w : why)
      if (!w.empty()) return w;
    make_biases();
    expert_bytes_ = static_cast<int64_t>(up[0].bytes + down[0].bytes);
    const double layer = static_cast<double>(expert_bytes_ * s_.e);
    const auto copies = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(o_.bytes / layer)));
    for (int64_t i = 0; i < copies; ++i)
      if (const std::string w = add_copy(up, down); !w.empty()) return w;
    return "";
  }

  // One block of memory per copy, expert after expert as a loaded layer lies there.
  std::string add_copy(const std::vector<PackedMatrix>& up, const std::vector<PackedMatrix>& down) {
    Result<Buffer> block = device_->allocate(
        static_cast<size_t>(expert_bytes_ * s_.e) + 64 * static_cast<size_t>(2 * s_.e), "weights");
    if (!block.ok()) return block.status().message();
    std::byte* at = block->data();
    const auto place = [&](const PackedMatrix& content) {
      PackedMatrix m = content;
      std::memcpy(at, content.data, content.bytes);
      m.data = at;
      m.owner.reset();
      at += (content.bytes + 63) / 64 * 64;
      return matrices_.emplace_back(std::make_unique<PackedMatrix>(m)).get();
    };
    auto& ups = up_pointers_.emplace_back();
    auto& downs = down_pointers_.emplace_back();
    for (int64_t e = 0; e < s_.e; ++e) ups.push_back(place(up[static_cast<size_t>(e % kContents)]));
    for (int64_t e = 0; e < s_.e; ++e)
      downs.push_back(place(down[static_cast<size_t>(e % kContents)]));
    blocks_.push_back(std::move(*block));
    return "";
  }

  void make_biases() {
    if (!s_.bias()) return;
    for (int64_t c = 0; c < s_.contents(); ++c) {
      auto& up = biases_.emplace_back(static_cast<size_t>(2 * s_.i));
      fill_bias(s_, c, Matrix::kGate, up.data());
      fill_bias(s_, c, Matrix::kUp, up.data() + s_.i);
      auto& down = biases_.emplace_back(static_cast<size_t>(s_.d));
      fill_bias(s_, c, Matrix::kDown, down.data());
    }
    for (int64_t e = 0; e < s_.e; ++e) {
      up_bias_pointers_.push_back(biases_[static_cast<size_t>(e % kContents * 2)].data());
      down_bias_pointers_.push_back(biases_[static_cast<size_t>(e % kContents * 2 + 1)].data());
    }
  }

  // Every worker streams its part of a copy of the weights, copy after copy until it has read
  // enough to be measured: what the calls read, from where they read it.
  double read_gbs() {
    constexpr int64_t kPiece = int64_t{1} << 18, kEnough = int64_t{600} << 20;  // floats, bytes
    const int64_t n = pool_->size();
    const auto sum = sum_kernel(isa_);
    std::atomic<float> sink{0};
    int64_t bytes = 0;
    const double start = microseconds();
    for (int round = 0; bytes < kEnough && round < 1000; ++round) {  // small layers: less
      const Buffer& block = blocks_[static_cast<size_t>(probes_++ % copies())];
      const int64_t pieces = static_cast<int64_t>(block.bytes()) / 4 / kPiece;
      pool_->parallel_for(n, 1, [&](int64_t w, int) {
        for (int64_t p = pieces * w / n; p < pieces * (w + 1) / n; ++p)
          sink.store(sum(block.as<float>() + p * kPiece, kPiece));
      });
      bytes += pieces * kPiece * 4;
    }
    return static_cast<double>(bytes) / (microseconds() - start) / 1e3;
  }

  Options o_;
  Shape s_;
  Arith arith_ = Arith::kF32Fma;
  Isa isa_ = Isa::kReference;
  int64_t expert_bytes_ = 0, probes_ = 0;
  std::unique_ptr<Device> device_;  // before what it allocates
  std::unique_ptr<ThreadPool> pool_;
  Buffer scratch_;
  std::vector<Buffer> blocks_;
  std::vector<std::vector<float>> biases_;
  std::vector<std::unique_ptr<PackedMatrix>> matrices_;
  std::vector<std::vector<const PackedMatrix*>> up_pointers_, down_pointers_;
  std::vector<const float*> up_bias_pointers_, down_bias_pointers_;
};

int main_of(int argc, char** argv) {
  Options options;
  if (!parse_options(argc, argv, &options)) return fail("bad options");
  const Format* format = find_format(options.weights);
  if (format == nullptr)
    return fail("unsupported: no weights of format " + options.weights + " here yet");
  Ours ours;
  if (const std::string why = ours.load(options, *format); !why.empty()) return fail(why);
  say(ours.describe(*format));
  return Loop(options, ours).run();
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  return peers::main_of(argc, argv);
}
