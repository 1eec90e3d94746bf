// probe_bandwidth: what the memory gives to a kernel that only reads, and to one that copies.
//
// Reading: a persistent grid, 16-byte loads, several in flight per thread; and, on Hopper, bulk
// copies into a ring in shared memory. Blocks, threads and depths are swept, because the ceiling of
// a decode step is the best of them. Self-check: the sum of every word read, against a closed form.
#include "bench/gpu/hopper.h"
#include "bench/gpu/probe.h"

namespace sluice::probe {
namespace {

// Word i of the buffer. Sums of it modulo 2^32 have a closed form.
constexpr uint32_t kFactor = 2654435761u;

__global__ void fill(uint4* to, int64_t count) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const auto w = static_cast<uint32_t>(4 * i);
    to[i] = make_uint4(w * kFactor, (w + 1) * kFactor, (w + 2) * kFactor, (w + 3) * kFactor);
  }
}
uint32_t sum_of_words(int64_t words) {
  const auto n = static_cast<uint64_t>(words);
  return kFactor * static_cast<uint32_t>(n % 2 == 0 ? n / 2 * (n - 1) : (n - 1) / 2 * n);
}

__device__ uint32_t add(uint4 v) {
  return v.x + v.y + v.z + v.w;
}
__device__ uint4 load_once(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// One atomic of integers a warp at the end: their order does not matter.
__device__ void publish(uint32_t sum, uint32_t* total) {
  for (int half = 16; half >= 1; half /= 2) sum += __shfl_down_sync(0xffffffffu, sum, half);
  if (threadIdx.x % 32 == 0) atomicAdd(total, sum);
}

template <int kLoads>
__global__ void read_loads(const uint4* from, int64_t count, uint32_t* total) {
  const int64_t tile = int64_t{blockDim.x} * kLoads;
  uint32_t sum = 0;
  for (int64_t base = blockIdx.x * tile; base < count; base += gridDim.x * tile) {
    uint4 v[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int64_t at = base + int64_t{i} * blockDim.x + threadIdx.x;
      v[i] = at < count ? load_once(from + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) sum += add(v[i]);
  }
  publish(sum, total);
}

// A ring of kStages buffers of kStageBytes; thread 0 keeps it full.
constexpr int kStageBytes = 16384;
template <int kStages>
__global__ void __launch_bounds__(256)
    read_bulk(const uint4* from, int64_t count, uint32_t* total) {
#if defined(PROBE_SM90A)
  extern __shared__ __align__(128) uint8_t ring[];
  __shared__ uint64_t full[kStages];
  constexpr int kPieces = kStageBytes / 16;
  const int64_t tiles = count / kPieces;  // the host gives whole tiles
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) barrier_init(&full[s], 1);
    barrier_init_fence();
  }
  __syncthreads();
  const auto request = [&](int64_t i) {  // the block's i-th tile
    const int64_t tile = blockIdx.x + i * gridDim.x;
    if (threadIdx.x != 0 || tile >= tiles) return;
    uint64_t* barrier = &full[i % kStages];
    barrier_expect(barrier, kStageBytes);
    bulk_load(ring + i % kStages * kStageBytes, from + tile * kPieces, kStageBytes, barrier);
  };
  for (int64_t i = 0; i < kStages; ++i) request(i);
  uint32_t sum = 0;
  for (int64_t i = 0; blockIdx.x + i * gridDim.x < tiles; ++i) {
    barrier_wait(&full[i % kStages], static_cast<uint32_t>(i / kStages % 2));
    const auto* stage = reinterpret_cast<const uint4*>(ring + i % kStages * kStageBytes);
    for (int p = static_cast<int>(threadIdx.x); p < kPieces; p += static_cast<int>(blockDim.x))
      sum += add(stage[p]);
    __syncthreads();  // all have read the stage before it is written again
    request(i + kStages);
  }
  publish(sum, total);
#else
  __trap();
#endif
}

template <int kLoads>
__global__ void copy_loads(const uint4* from, uint4* to, int64_t count) {
  const int64_t tile = int64_t{blockDim.x} * kLoads;
  for (int64_t base = blockIdx.x * tile; base < count; base += gridDim.x * tile) {
    uint4 v[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int64_t at = base + int64_t{i} * blockDim.x + threadIdx.x;
      if (at < count) v[i] = load_once(from + at);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int64_t at = base + int64_t{i} * blockDim.x + threadIdx.x;
      if (at < count) to[at] = v[i];
    }
  }
}

class Sweep {
 public:
  Sweep(const cudaDeviceProp& device, size_t bytes)
      : device_(device), bytes_(bytes), source_(bytes / 16), total_(1) {
    fill<<<static_cast<unsigned>(8 * device.multiProcessorCount), 512>>>(source_.data(), count());
    PROBE_CHECK(cudaGetLastError());
    PROBE_CHECK(cudaDeviceSynchronize());
  }

  bool read() {
    for (const int blocks : {1, 2, 4, 8})
      for (const int threads : {256, 512, 1024}) {
        if (blocks * threads > device_.maxThreadsPerMultiProcessor) continue;
        loads<4>(blocks, threads), loads<8>(blocks, threads), loads<16>(blocks, threads);
      }
    if (device_.major == 9) bulk<2>(1), bulk<4>(1), bulk<8>(1), bulk<12>(1), bulk<4>(2), bulk<6>(2);
    Result("bandwidth")
        .text("kind", "read_best")
        .number("bytes", static_cast<double>(bytes_))
        .text("form", best_form_)
        .number("gb_per_s", best_)
        .print(say("read %.0f MiB: best %.0f GB/s by %s", mib(), best_, best_form_.c_str()));
    return good_;
  }

  bool copy() {
    DeviceArray<uint4> target(source_.count());
    target.poison();
    const auto blocks = static_cast<unsigned>(4 * device_.multiProcessorCount);
    report_copy("kernel", median_us(nullptr, 10, [&] {
                  copy_loads<8><<<blocks, 512>>>(source_.data(), target.data(), count());
                }));
    PROBE_CHECK(cudaGetLastError());
    verify_copy(target);
    target.poison();
    report_copy("memcpy", median_us(nullptr, 10, [&] {
                  PROBE_CHECK(cudaMemcpyAsync(target.data(), source_.data(), bytes_,
                                              cudaMemcpyDeviceToDevice, nullptr));
                }));
    verify_copy(target);
    return good_;
  }

 private:
  int64_t count() const { return static_cast<int64_t>(source_.count()); }
  double mib() const { return static_cast<double>(bytes_) / 1048576.0; }

  template <class Launch>
  void run(const std::string& form, Launch launch) {
    const auto bytes = static_cast<double>(bytes_);
    const double us = median_us(nullptr, 7, [&] {
      PROBE_CHECK(cudaMemsetAsync(total_.data(), 0, 4, nullptr));
      launch();
    });
    PROBE_CHECK(cudaGetLastError());
    PROBE_CHECK(cudaDeviceSynchronize());
    const double rate = bytes / us * 1e-3;
    const bool right = total_.read()[0] == sum_of_words(4 * count());
    good_ = good_ && right;
    if (right && rate > best_) best_ = rate, best_form_ = form;
    Result("bandwidth")
        .text("kind", "read")
        .number("bytes", bytes)
        .text("form", form)
        .number("us", us)
        .number("gb_per_s", rate)
        .flag("right", right)
        .print(say("read %.0f MiB, %s: %.0f GB/s%s", mib(), form.c_str(), rate,
                   right ? "" : " WRONG SUM"));
  }
  template <int kLoads>
  void loads(int blocks, int threads) {
    int resident = 0;  // fewer would run in waves, or, with too many registers, not at all
    PROBE_CHECK(
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, read_loads<kLoads>, threads, 0));
    if (resident < blocks) return;
    run(say("loads%d_%dx%d", kLoads, blocks, threads), [&] {
      read_loads<kLoads>
          <<<static_cast<unsigned>(blocks * device_.multiProcessorCount),
             static_cast<unsigned>(threads)>>>(source_.data(), count(), total_.data());
    });
  }
  template <int kStages>
  void bulk(int blocks) {
    constexpr size_t kShared = size_t{kStages} * kStageBytes;
    if (blocks * (kShared + 2048) > device_.sharedMemPerMultiprocessor) return;
    PROBE_CHECK(cudaFuncSetAttribute(read_bulk<kStages>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
    run(say("bulk%d_%dx256", kStages, blocks), [&] {
      read_bulk<kStages>
          <<<static_cast<unsigned>(blocks * device_.multiProcessorCount), 256, kShared>>>(
              source_.data(), count(), total_.data());
    });
  }
  void report_copy(const char* form, double us) {
    const double rate = 2 * static_cast<double>(bytes_) / us * 1e-3;
    Result("bandwidth")
        .text("kind", "copy")
        .number("bytes", static_cast<double>(bytes_))
        .text("form", form)
        .number("us", us)
        .number("gb_per_s", rate)
        .print(say("copy %.0f MiB by %s: %.0f GB/s read and written", mib(), form, rate));
  }
  void verify_copy(const DeviceArray<uint4>& target) {
    PROBE_CHECK(cudaMemset(total_.data(), 0, 4));
    read_loads<8><<<static_cast<unsigned>(4 * device_.multiProcessorCount), 512>>>(
        target.data(), count(), total_.data());
    PROBE_CHECK(cudaGetLastError());
    if (total_.read()[0] == sum_of_words(4 * count())) return;
    good_ = false;
    Result("bandwidth").text("kind", "copy").flag("right", false).print("copy: WRONG SUM");
  }

  cudaDeviceProp device_;
  size_t bytes_;
  DeviceArray<uint4> source_;
  DeviceArray<uint32_t> total_;
  double best_ = 0;
  std::string best_form_ = "none";
  bool good_ = true;
};

}  // namespace
}  // namespace sluice::probe

int main() {
  using namespace sluice::probe;
  const cudaDeviceProp device = open_device("bandwidth");
  Result("bandwidth")
      .text("kind", "device")
      .text("name", device.name)
      .number("processors", device.multiProcessorCount)
      .number("l2_bytes", device.l2CacheSize)
      .number("memory_bytes", static_cast<double>(device.totalGlobalMem))
      .print(say("%s: %d processors, %.0f MB of L2", device.name, device.multiProcessorCount,
                 device.l2CacheSize * 1e-6));
  bool good = true;
  for (const size_t gib : {1, 4}) {
    const size_t bytes = gib << 30;
    if (2 * bytes > device.totalGlobalMem) continue;
    Sweep sweep(device, bytes);
    good = sweep.read() && good;
    good = sweep.copy() && good;
  }
  return good ? 0 : 1;
}
