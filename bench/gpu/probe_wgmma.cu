// probe_wgmma: do the matrix units' forms give the same bits, and in which order do they add?
//
// One product C[64, 256] = A B^T in bf16 and in e4m3, computed by wgmma with N = 8 .. 256, with its
// operands exchanged, with A from registers, with swizzled shared memory, by mma.sync, and by a
// chain of f32 FMAs with and without flushing of subnormals. Counted: the elements whose bits
// differ, for each pair; and how often each written order of sum_orders.h gives the bits of wgmma.
// The answers decide which kernels may share an arith. Self-check: every form near f64.
#include <cstring>
#include <random>

#include "bench/gpu/probe.h"
#include "bench/gpu/sum_orders.h"
#include "bench/gpu/wgmma_steps.h"

namespace sluice::probe {
namespace {

constexpr int kM = 64, kN = 256, kSteps = 32;  // K = 512 bf16 or 1024 e4m3
constexpr int kRowBytes = kSteps * kStepBytes;
constexpr int kWarpgroup = 128;

// One form's operands: out(x, y) = sum over k of x's row times y's row, at x * x_stride + y *
// y_stride: exchanging the operands changes pointers and strides only.
struct Problem {
  const uint8_t *x, *y;  // rows of kRowBytes
  float* out;
  int x_stride, y_stride;
  SLUICE_HD void put(int row, int column, float v) const {
    out[static_cast<int64_t>(row) * x_stride + static_cast<int64_t>(column) * y_stride] = v;
  }
};

// Copies `bytes` bytes from column `from` of `rows` rows into shared memory, 16 at a time, by the
// offset map of tile_maps.h.
template <class Offset>
__device__ void stage(uint8_t* tile, const uint8_t* source, int rows, int from, int bytes,
                      Offset offset) {
  const int pieces = bytes / 16;
  for (int i = static_cast<int>(threadIdx.x); i < rows * pieces; i += kWarpgroup) {
    const int row = i / pieces, byte = i % pieces * 16;
    *reinterpret_cast<uint4*>(tile + offset(row, byte)) = *reinterpret_cast<const uint4*>(
        source + static_cast<int64_t>(row) * kRowBytes + from + byte);
  }
}

enum class Source { kPlain, kSwizzled, kRegister };

#if defined(PROBE_SM90A)
template <bool kFp8, Source kSource, int N>
__device__ void step(float (&d)[N / 2], const uint8_t* x, uint32_t tile_x, uint32_t tile_y,
                     int from, int add) {
  const auto describe = [](uint32_t address) {
    return kSource == Source::kSwizzled
               ? wgmma_descriptor(address, 16, kSwizzleStride, Swizzle::k128)
               : wgmma_descriptor(address, kPlainLeading, kPlainStride, Swizzle::kNone);
  };
  if constexpr (kSource == Source::kRegister) {
    uint32_t a[4];
    for (int i = 0; i < 4; ++i) {
      const Place p = wgmma_a(static_cast<int>(threadIdx.x), i);
      a[i] = *reinterpret_cast<const uint32_t*>(x + static_cast<int64_t>(p.row) * kRowBytes + from +
                                                p.column);
    }
    wgmma_fence();
    if constexpr (kFp8)
      Wgmma<N>::e4m3_register(d, a, describe(tile_y), add);
    else
      Wgmma<N>::bf16_register(d, a, describe(tile_y), add);
  } else {
    wgmma_fence();
    if constexpr (kFp8)
      Wgmma<N>::e4m3(d, describe(tile_x), describe(tile_y), add);
    else
      Wgmma<N>::bf16(d, describe(tile_x), describe(tile_y), add);
  }
  wgmma_commit_and_wait();
}
#endif

// A block of one warpgroup: 64 rows of x by N rows of y. Nothing overlaps: this is about bits.
template <bool kFp8, Source kSource, int N>
__global__ void __launch_bounds__(kWarpgroup) wgmma_form(const __grid_constant__ Problem p) {
#if defined(PROBE_SM90A)
  constexpr bool kSwizzled = kSource == Source::kSwizzled;
  constexpr int kStaged = kSwizzled ? kSwizzleRow : kStepBytes;
  __shared__ __align__(1024) uint8_t tile_x[64 * kStaged];
  __shared__ __align__(1024) uint8_t tile_y[N * kStaged];
  const uint8_t* x = p.x + static_cast<int64_t>(blockIdx.x) * 64 * kRowBytes;
  const uint8_t* y = p.y + static_cast<int64_t>(blockIdx.y) * N * kRowBytes;
  float d[N / 2];
  for (float& v : d) v = 0.0f;
  for (int from = 0; from < kRowBytes; from += kStaged) {
    __syncthreads();
    if constexpr (kSwizzled) {
      stage(tile_x, x, 64, from, kStaged, swizzled_offset);
      stage(tile_y, y, N, from, kStaged, swizzled_offset);
    } else {
      stage(tile_x, x, 64, from, kStaged, plain_offset);
      stage(tile_y, y, N, from, kStaged, plain_offset);
    }
    fence_async_proxy();
    __syncthreads();
    for (int s = 0; s < kStaged; s += kStepBytes)
      step<kFp8, kSource, N>(d, x, shared_address(tile_x) + static_cast<uint32_t>(s),
                             shared_address(tile_y) + static_cast<uint32_t>(s), from + s,
                             from + s > 0);
  }
  for (int i = 0; i < N / 2; ++i) {
    const Place at = wgmma_accumulator(static_cast<int>(threadIdx.x), i);
    p.put(static_cast<int>(blockIdx.x) * 64 + at.row, static_cast<int>(blockIdx.y) * N + at.column,
          d[i]);
  }
#else
  __trap();
#endif
}

// A block of one warp: 16 rows of x by 8 rows of y.
template <bool kFp8>
__global__ void __launch_bounds__(32) mma_form(const __grid_constant__ Problem p) {
  const uint8_t* x = p.x + static_cast<int64_t>(blockIdx.x) * 16 * kRowBytes;
  const uint8_t* y = p.y + static_cast<int64_t>(blockIdx.y) * 8 * kRowBytes;
  const int lane = static_cast<int>(threadIdx.x);
  const auto word = [](const uint8_t* rows, Place at, int from) {
    return *reinterpret_cast<const uint32_t*>(rows + static_cast<int64_t>(at.row) * kRowBytes +
                                              from + at.column);
  };
  float d[4] = {};
  for (int from = 0; from < kRowBytes; from += kStepBytes) {
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; ++i) a[i] = word(x, mma_a(lane, i), from);
    for (int i = 0; i < 2; ++i) b[i] = word(y, mma_b(lane, i), from);
    if constexpr (kFp8)
      mma_e4m3(d, a, b);
    else
      mma_bf16(d, a, b);
  }
  for (int i = 0; i < 4; ++i) {
    const Place at = mma_accumulator(lane, i);
    p.put(static_cast<int>(blockIdx.x) * 16 + at.row, static_cast<int>(blockIdx.y) * 8 + at.column,
          d[i]);
  }
}

// The chain of f32 FMAs over operands widened on the host; a thread an element.
template <bool kFlush>
__global__ void chain_form(const float* x, const float* y, int k, float* out) {
  const float* a = x + static_cast<int64_t>(blockIdx.x) * k;
  const float* b = y + static_cast<int64_t>(threadIdx.x) * k;
  float acc = 0.0f;
  for (int i = 0; i < k; ++i) {
    if constexpr (kFlush)
      asm("fma.rn.ftz.f32 %0, %1, %2, %0;" : "+f"(acc) : "f"(a[i]), "f"(b[i]));
    else
      asm("fma.rn.f32 %0, %1, %2, %0;" : "+f"(acc) : "f"(a[i]), "f"(b[i]));
  }
  out[blockIdx.x * kN + threadIdx.x] = acc;
}

// ------------------------------------------------------------------------------------------ host

enum class Data { kNormal, kWide, kCancelling, kSubnormal };
constexpr const char* kDataNames[] = {"normal", "wide", "cancelling", "subnormal"};

// One code of A or B. Wide: exponents over most of the format. Cancelling: every odd k nearly
// undoes the even one. Subnormal: products around the smallest f32, and subnormal inputs.
class Codes {
 public:
  Codes(bool fp8, Data data, uint32_t seed) : fp8_(fp8), data_(data), random_(seed) {}
  uint32_t next(int k, uint32_t before, bool second) {
    if (data_ == Data::kCancelling && k % 2 == 1 && random_() % 4 != 0)
      return second ? before : before ^ (fp8_ ? 0x80u : 0x8000u) ^ (random_() % 8 == 0 ? 1u : 0u);
    return fp8_ ? e4m3() : bfloat(second);
  }

 private:
  uint32_t sign_and(uint32_t exponent, int mantissa_bits, uint32_t sign) {
    return ((random_() & 1u) != 0 ? sign : 0) | (exponent << mantissa_bits) |
           (random_() & ((1u << mantissa_bits) - 1));
  }
  uint32_t e4m3() {
    uint32_t low = 5, span = 5;  // exponents low .. low + span - 1, bias 7
    if (data_ == Data::kWide) low = 1, span = 14;
    if (data_ == Data::kSubnormal) low = 0, span = 2;
    return sign_and(low + random_() % span, 3, 0x80);
  }
  uint32_t bfloat(bool second) {
    uint32_t low = 123, span = 7;
    if (data_ == Data::kWide) low = 97, span = 60;
    // 2^-67 squared is near 2^-134; a few inputs are subnormal beside large ones.
    if (data_ == Data::kSubnormal) low = 52, span = 16;
    if (data_ == Data::kSubnormal && random_() % 8 == 0) {
      low = second ? 120 : 0;
      span = second ? 8 : 1;
    }
    return sign_and(low + random_() % span, 7, 0x8000);
  }
  bool fp8_;
  Data data_;
  std::mt19937 random_;
};

struct Operand {
  int rows = 0, k = 0;
  std::vector<uint8_t> bytes;
  std::vector<Scaled> values;
  std::vector<float> floats;
  std::span<const Scaled> row(int r) const {
    return std::span(values).subspan(static_cast<size_t>(r) * static_cast<size_t>(k),
                                     static_cast<size_t>(k));
  }
};

Operand make_operand(int rows, bool fp8, Data data, bool second) {
  Operand o;
  o.rows = rows;
  o.k = fp8 ? kRowBytes : kRowBytes / 2;
  Codes codes(fp8, data, second ? 77u : 11u);
  for (int r = 0; r < rows; ++r) {
    uint32_t code = 0;
    for (int k = 0; k < o.k; ++k) {
      code = codes.next(k, code, second);
      o.bytes.push_back(static_cast<uint8_t>(code));
      if (!fp8) o.bytes.push_back(static_cast<uint8_t>(code >> 8));
      o.values.push_back(fp8 ? from_e4m3(static_cast<uint8_t>(code))
                             : from_bf16(static_cast<uint16_t>(code)));
      o.floats.push_back(static_cast<float>(value_of(o.values.back())));
    }
  }
  return o;
}

struct Form {
  std::string name;
  std::vector<float> out;
};

class Experiment {
 public:
  Experiment(bool fp8, Data data)
      : fp8_(fp8),
        data_(data),
        a_(make_operand(kM, fp8, data, false)),
        b_(make_operand(kN, fp8, data, true)),
        a_bytes_(a_.bytes),
        b_bytes_(b_.bytes),
        out_(static_cast<size_t>(kM) * kN) {}

  template <bool kFp8>
  void run_forms() {
    run_n<kFp8, Source::kPlain, 8, 16, 32, 64, 128, 256>("wgmma_n", false);
    run_n<kFp8, Source::kPlain, 8, 16, 32, 64>("wgmma_swapped_n", true);
    run_n<kFp8, Source::kSwizzled, 8, 64, 256>("wgmma_swizzled_n", false);
    run_n<kFp8, Source::kRegister, 8, 64, 256>("wgmma_register_n", false);
    run_form("mma_sync", false, [](const Problem& p, int x, int y) {
      mma_form<kFp8><<<dim3(x / 16, y / 8), 32>>>(p);
    });
    run_form("mma_sync_swapped", true, [](const Problem& p, int x, int y) {
      mma_form<kFp8><<<dim3(x / 16, y / 8), 32>>>(p);
    });
    const DeviceArray<float> x(a_.floats), y(b_.floats);
    run_form("fma_chain", false, [&](const Problem&, int, int) {
      chain_form<false><<<kM, kN>>>(x.data(), y.data(), a_.k, out_.data());
    });
    run_form("fma_chain_ftz", false, [&](const Problem&, int, int) {
      chain_form<true><<<kM, kN>>>(x.data(), y.data(), a_.k, out_.data());
    });
  }

  // False when a form is farther from f64 than any order of its length could be.
  bool check_values() const {
    bool good = true;
    for (const Form& f : forms_) {
      int wrong = 0;
      for (int r = 0; r < kM; ++r)
        for (int c = 0; c < kN; ++c) {
          const Bounded want = bounded_dot(a_.row(r), b_.row(c), fp8_ ? 13 : 22);
          // What flushing may lose: inputs and sums below 2^-126.
          const double slack = data_ == Data::kSubnormal ? 0x1p-120 * a_.k : 0.0;
          const double got = f.out[static_cast<size_t>(r * kN + c)];
          if (!(std::abs(got - want.sum) <= want.bound + slack)) ++wrong;
        }
      if (wrong == 0) continue;
      good = false;
      Result("wgmma")
          .text("form", f.name)
          .text("input", input())
          .text("data", data())
          .number("wrong", wrong)
          .print(say("WRONG: %s, %s, %s: %d of %d elements are not the product", f.name.c_str(),
                     input(), data(), wrong, kM * kN));
    }
    return good;
  }

  void print_pairs() const {
    for (size_t i = 0; i < forms_.size(); ++i)
      for (size_t j = i + 1; j < forms_.size(); ++j) {
        int differ = 0;
        for (size_t e = 0; e < forms_[i].out.size(); ++e)
          differ += std::memcmp(&forms_[i].out[e], &forms_[j].out[e], 4) != 0 ? 1 : 0;
        const std::string verdict = differ == 0 ? "same bits" : say("%d differ", differ);
        Result("wgmma")
            .text("kind", "pair")
            .text("input", input())
            .text("data", data())
            .text("a", forms_[i].name)
            .text("b", forms_[j].name)
            .number("differ", differ)
            .number("of", kM * kN)
            .print(say("%s %-10s %-20s %-20s %s", input(), data(), forms_[i].name.c_str(),
                       forms_[j].name.c_str(), verdict.c_str()));
      }
  }

  // Which written order has the bits of `form`, over a sample of the elements.
  void print_orders(const char* form) const {
    const Form* f = nullptr;
    for (const Form& g : forms_)
      if (g.name == form) f = &g;
    if (f == nullptr) return;
    constexpr int kRowStep = 8, kColumnStep = 16, kSample = kM / kRowStep * (kN / kColumnStep);
    std::vector<std::pair<int, std::string>> matches;
    for (const Candidate& c : candidates(fp8_)) {
      int same = 0;
      for (int r = 0; r < kM; r += kRowStep)
        for (int col = 0; col < kN; col += kColumnStep) {
          const float want = f->out[static_cast<size_t>(r * kN + col)];
          const float got = c.run(c, a_.row(r), b_.row(col));
          same += std::memcmp(&want, &got, 4) == 0 ? 1 : 0;
        }
      matches.emplace_back(same, c.name);
    }
    std::stable_sort(matches.begin(), matches.end(),
                     [](const auto& p, const auto& q) { return p.first > q.first; });
    for (size_t i = 0; i < 4; ++i)
      Result("wgmma")
          .text("kind", "order")
          .text("input", input())
          .text("data", data())
          .text("form", form)
          .text("order", matches[i].second)
          .number("rank", static_cast<double>(i))
          .number("same", matches[i].first)
          .number("of", kSample)
          .print(say("%s %-10s %-20s as %-22s %d of %d", input(), data(), form,
                     matches[i].second.c_str(), matches[i].first, kSample));
  }

 private:
  const char* input() const { return fp8_ ? "e4m3" : "bf16"; }
  const char* data() const { return kDataNames[static_cast<int>(data_)]; }

  template <class Launch>
  void run_form(const std::string& name, bool swapped, Launch launch) {
    out_.poison();
    if (swapped)
      launch(Problem{b_bytes_.data(), a_bytes_.data(), out_.data(), 1, kN}, kN, kM);
    else
      launch(Problem{a_bytes_.data(), b_bytes_.data(), out_.data(), kN, 1}, kM, kN);
    PROBE_CHECK(cudaGetLastError());
    PROBE_CHECK(cudaDeviceSynchronize());
    forms_.push_back({name, out_.read()});
  }
  template <bool kFp8, Source kSource, int... kNs>
  void run_n(const char* name, bool swapped) {
    (run_form(name + std::to_string(kNs), swapped,
              [](const Problem& p, int x, int y) {
                wgmma_form<kFp8, kSource, kNs><<<dim3(x / 64, y / kNs), kWarpgroup>>>(p);
              }),
     ...);
  }

  bool fp8_;
  Data data_;
  Operand a_, b_;
  DeviceArray<uint8_t> a_bytes_, b_bytes_;
  DeviceArray<float> out_;
  std::vector<Form> forms_;
};

bool experiment(bool fp8, Data data) {
  Experiment e(fp8, data);
  if (fp8)
    e.run_forms<true>();
  else
    e.run_forms<false>();
  e.print_pairs();
  e.print_orders("wgmma_n64");
  e.print_orders("mma_sync");
  return e.check_values();
}

}  // namespace
}  // namespace sluice::probe

int main() {
  using namespace sluice::probe;
  open_device("wgmma", 90, 9);
  bool good = true;
  for (const bool fp8 : {false, true})
    for (const Data data : {Data::kNormal, Data::kWide, Data::kCancelling, Data::kSubnormal})
      good = experiment(fp8, data) && good;
  return good ? 0 : 1;
}
