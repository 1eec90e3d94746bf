// One thread block of a CUDA kernel, as a loop: how kernel bodies run, and are proved, without a
// GPU.
//
// The body of a kernel is a struct with `kThreads` and a template operator()(Block& block). It is
// written in phases: block.each(f) calls f(thread) for every thread of the block and ends with a
// barrier. What a thread keeps from one phase to the next lives in Block::PerThread<T>, what the
// block shares in block.shared<T>(). On a GPU (device/cuda/launch.cuh) a phase is one call and a
// __syncthreads(), PerThread a register; here it is a loop over the threads, forwards and, for
// every other block, backwards, so that a phase which depends on the order of its threads shows.
// The two run the same source: the index arithmetic that a host test executes is the kernel's own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/host_device.h"
#include "device/mma.h"

namespace sluice {

inline constexpr int kWarp = 32;
inline constexpr int kScanScratch = kWarp + 1;  // values, of exclusive_scan

// A value in memory that holds other types elsewhere: panels of weights, shared memory. On a GPU at
// an address that is aligned for it.
template <class T>
SLUICE_HD inline T load_as(const void* at) {
#if defined(__CUDA_ARCH__)
  return *static_cast<const T*>(at);
#else
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
#endif
}
template <class T>
SLUICE_HD inline void store_as(void* at, const T& value) {
#if defined(__CUDA_ARCH__)
  *static_cast<T*>(at) = value;
#else
  std::memcpy(at, &value, sizeof(T));
#endif
}

class HostBlock {
 public:
  HostBlock(int64_t index, int threads, size_t shared_bytes)
      : index_(index), threads_(threads), shared_(shared_bytes / sizeof(Line) + 1) {}

  // The value that each thread keeps; index with the thread's number.
  template <class T>
  class PerThread {
   public:
    explicit PerThread(HostBlock& block) : values_(static_cast<size_t>(block.threads())) {}
    T& operator[](int thread) { return values_[static_cast<size_t>(thread)].value; }

   private:
    struct Slot {  // also for bool, which std::vector would pack
      T value{};
    };
    std::vector<Slot> values_;
  };

  int64_t index() const { return index_; }
  int threads() const { return threads_; }

  template <class F>
  void each(const F& phase) {
    if ((index_ & 1) == 0)
      for (int t = 0; t < threads_; ++t) phase(t);
    else
      for (int t = threads_ - 1; t >= 0; --t) phase(t);
  }
  // Shared memory from `offset` bytes on, 16-byte aligned when the offset is; not zeroed on a GPU,
  // filled with a NaN pattern here.
  template <class T>
  T* shared(size_t offset = 0) {
    return reinterpret_cast<T*>(reinterpret_cast<std::byte*>(shared_.data()) + offset);
  }
  // Adds over each warp by halves, v[j] + v[j + 16], then 8, 4, 2, 1 (simd/scalar.h's Sum32): every
  // thread of the warp receives the total. All threads of the block call it together.
  void warp_sum(PerThread<float>& v) {
    warp_fold(v, [](float a, float b) { return a + b; });
  }
  // The same order with any associative or not associative fold(low, high).
  template <class T, class Fold>
  void warp_fold(PerThread<T>& v, const Fold& fold) {
    for (int base = 0; base < threads_; base += kWarp) {
      for (int half = kWarp / 2; half >= 1; half /= 2)
        for (int j = 0; j < half; ++j) v[base + j] = fold(v[base + j], v[base + j + half]);
      for (int j = 1; j < kWarp; ++j) v[base + j] = v[base];
    }
  }
  // Each warp multiplies what operands_of(thread) gives for its lanes (device/mma.h); use(thread,
  // sums) receives the products. No barrier: neither may read what another thread writes there.
  // All threads of the block call it together.
  template <MmaB kind = MmaB::kSigned, class Operands, class Use>
  void warp_mma(const Operands& operands_of, const Use& use) {
    for (int base = 0; base < threads_; base += kWarp) {
      MmaOperands operands[kWarp];
      MmaSums sums[kWarp];
      for (int j = 0; j < kWarp; ++j) operands[j] = operands_of(base + j);
      emulate_mma<kind>(operands, sums);
      for (int j = 0; j < kWarp; ++j) use(base + j, sums[j]);
    }
  }
  // Every thread's integer becomes the sum of those before it; returns the sum of all. `scratch` is
  // shared memory for kScanScratch values. All threads of the block call it together.
  template <class T>
  T exclusive_scan(PerThread<T>& v, T* scratch) {
    static_assert(std::is_integral_v<T>, "a sum that no order changes");
    static_cast<void>(scratch);
    T total = 0;
    for (int t = 0; t < threads_; ++t) {
      const T own = v[t];
      v[t] = total;
      total = static_cast<T>(total + own);
    }
    return total;
  }
  // Integer atomics, on shared or global memory, whose order does not show in what is left there;
  // they return the value before.
  template <class T>
  static T atomic_add(T* p, T v) {
    static_assert(std::is_integral_v<T>, "no floating-point sum may depend on an order");
    const T before = *p;
    *p = static_cast<T>(before + v);
    return before;
  }
  template <class T>
  static T atomic_or(T* p, T v) {
    static_assert(std::is_integral_v<T>);
    const T before = *p;
    *p = before | v;
    return before;
  }

 private:
  struct alignas(16) Line {
    uint32_t words[4] = {0x7fc0dead, 0x7fc0dead, 0x7fc0dead, 0x7fc0dead};
  };
  int64_t index_;
  int threads_;
  std::vector<Line> shared_;
};

// Runs every block of a kernel body, one after the other.
template <class Body>
void run_on_host(int64_t blocks, const Body& body, size_t shared_bytes = 0) {
  for (int64_t i = 0; i < blocks; ++i) {
    HostBlock block(i, Body::kThreads, shared_bytes);
    body(block);
  }
}

}  // namespace sluice
