// Launching kernel bodies (device/block.h) on a GPU. Included by *.cu files only, which stay clear
// of base/status.h: nvcc cannot read fmt in C++20.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "device/block.h"

namespace sluice {

class Stream;

// Of cuda_stream.cc.
cudaStream_t cuda_handle(Stream* stream);
// Keeps a stream's first failure.
void cuda_note(Stream* stream, cudaError_t error, const char* op);
// False after a failure, or when the launch would break a limit of the device (then kept).
bool cuda_may_launch(Stream* stream, const char* op, int64_t blocks, size_t shared_bytes);

// A kernel may take this much dynamic shared memory without asking.
inline constexpr size_t kSharedWithoutAsking = size_t{48} << 10;

// A thread block as its threads. The methods are __host__ too only because a body is compiled for
// both; the host never calls them.
class DeviceBlock {
 public:
  template <class T>
  class PerThread {
   public:
    SLUICE_HD explicit PerThread(DeviceBlock&) : value_{} {}
    SLUICE_HD T& operator[](int) { return value_; }

   private:
    T value_;
  };

  SLUICE_HD int64_t index() const {
#if defined(__CUDA_ARCH__)
    return blockIdx.x;
#else
    return 0;
#endif
  }
  SLUICE_HD int threads() const {
#if defined(__CUDA_ARCH__)
    return static_cast<int>(blockDim.x);
#else
    return 0;
#endif
  }
  template <class F>
  SLUICE_HD void each(const F& phase) {
#if defined(__CUDA_ARCH__)
    phase(static_cast<int>(threadIdx.x));
    __syncthreads();
#endif
  }
  template <class T>
  SLUICE_HD T* shared(size_t offset = 0) {
#if defined(__CUDA_ARCH__)
    extern __shared__ __align__(16) unsigned char sluice_shared_memory[];
    return reinterpret_cast<T*>(sluice_shared_memory + offset);
#else
    return nullptr;
#endif
  }
  SLUICE_HD void warp_sum(PerThread<float>& v) {
    warp_fold(v, [](float a, float b) { return a + b; });
  }
  template <class T, class Fold>
  SLUICE_HD void warp_fold(PerThread<T>& v, const Fold& fold) {
#if defined(__CUDA_ARCH__)
    for (int half = kWarp / 2; half >= 1; half /= 2)
      v[0] = fold(v[0], __shfl_down_sync(0xffffffffu, v[0], half));
    v[0] = __shfl_sync(0xffffffffu, v[0], 0);
#endif
  }
  template <MmaB kind = MmaB::kSigned, class Operands, class Use>
  SLUICE_HD void warp_mma(const Operands& operands_of, const Use& use) {
#if defined(__CUDA_ARCH__)
    const int thread = static_cast<int>(threadIdx.x);
    const MmaOperands o = operands_of(thread);
    MmaSums s;
    if constexpr (kind == MmaB::kSigned)
      asm volatile(
          "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%10, %10, %10, %10};"
          : "=r"(s.d[0]), "=r"(s.d[1]), "=r"(s.d[2]), "=r"(s.d[3])
          : "r"(o.a[0]), "r"(o.a[1]), "r"(o.a[2]), "r"(o.a[3]), "r"(o.b[0]), "r"(o.b[1]), "r"(0));
    else
      asm volatile(
          "mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%10, %10, %10, %10};"
          : "=r"(s.d[0]), "=r"(s.d[1]), "=r"(s.d[2]), "=r"(s.d[3])
          : "r"(o.a[0]), "r"(o.a[1]), "r"(o.a[2]), "r"(o.a[3]), "r"(o.b[0]), "r"(o.b[1]), "r"(0));
    use(thread, s);
#endif
  }
  template <class T>
  SLUICE_HD T exclusive_scan(PerThread<T>& v, T* scratch) {
    static_assert(std::is_integral_v<T>, "a sum that no order changes");
#if defined(__CUDA_ARCH__)
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const T own = v[0], inclusive = warp_scan(own);
    if (lane == kWarp - 1) scratch[warp] = inclusive;
    __syncthreads();
    if (warp == 0) {
      const T of_warp = lane * kWarp < static_cast<int>(blockDim.x) ? scratch[lane] : T{0};
      const T sum = warp_scan(of_warp);
      scratch[lane] = sum - of_warp;
      if (lane == kWarp - 1) scratch[kWarp] = sum;
    }
    __syncthreads();
    v[0] = inclusive - own + scratch[warp];
    const T total = scratch[kWarp];
    __syncthreads();  // scratch may be used again
    return total;
#else
    return T{0};
#endif
  }
  template <class T>
  SLUICE_HD static T atomic_add(T* p, T v) {
    static_assert(std::is_integral_v<T>, "no floating-point sum may depend on an order");
#if defined(__CUDA_ARCH__)
    using Word = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;
    return static_cast<T>(atomicAdd(reinterpret_cast<Word*>(p), static_cast<Word>(v)));
#else
    return v;
#endif
  }
  template <class T>
  SLUICE_HD static T atomic_or(T* p, T v) {
    static_assert(std::is_integral_v<T>);
#if defined(__CUDA_ARCH__)
    using Word = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;
    return static_cast<T>(atomicOr(reinterpret_cast<Word*>(p), static_cast<Word>(v)));
#else
    return v;
#endif
  }

 private:
#if defined(__CUDACC__)
  // Sums of the lanes up to this one.
  template <class T>
  __device__ static T warp_scan(T v) {
    for (int step = 1; step < kWarp; step *= 2) {
      const T below = __shfl_up_sync(0xffffffffu, v, step);
      if (static_cast<int>(threadIdx.x % kWarp) >= step) v += below;
    }
    return v;
  }
#endif
};

// Blocks that should share a multiprocessor: 0 leaves that to the compiler, which then spills a few
// registers rather than have one block less. A body of one block says kAlone and keeps them.
template <class Body>
constexpr int kLeastBlocks = 0;
template <class Body>
requires(Body::kAlone) constexpr int kLeastBlocks<Body> = 1;

template <class Body>
__global__ void __launch_bounds__(Body::kThreads, kLeastBlocks<Body>)
    run_body(const __grid_constant__ Body body) {
  DeviceBlock block;
  body(block);
}

// Queues `blocks` blocks of the body. A failure is kept by the stream, with the op's name, and
// surfaces when the stream is synchronized.
template <class Body>
void launch(Stream* stream, const char* op, int64_t blocks, const Body& body,
            size_t shared_bytes = 0) {
  if (blocks <= 0 || !cuda_may_launch(stream, op, blocks, shared_bytes)) return;
  if (shared_bytes > kSharedWithoutAsking)
    cuda_note(stream,
              cudaFuncSetAttribute(run_body<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              op);
  run_body<Body>
      <<<static_cast<unsigned>(blocks), Body::kThreads, shared_bytes, cuda_handle(stream)>>>(body);
  cuda_note(stream, cudaGetLastError(), op);
}

}  // namespace sluice
