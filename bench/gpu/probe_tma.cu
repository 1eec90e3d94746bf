// probe_tma: smoke tests of what the Hopper kernels will stand on: tensor maps and the bulk tensor
// copy (load, swizzle, edges filled with zeros, store, multicast), clusters and distributed shared
// memory. Each is right or wrong; the rate of none is measured here.
#include <cudaTypedefs.h>

#include "bench/gpu/hopper.h"
#include "bench/gpu/probe.h"

namespace sluice::probe {
namespace {

constexpr int kBox = 64;  // rows and columns of a box of 2-byte values
[[maybe_unused]] constexpr int kBoxBytes = kBox * kBox * 2;  // 8 KiB: rows of 128 bytes
constexpr int kRows = 200, kColumns = 328;  // multiples of neither: the last boxes hang over
constexpr int kBoxesDown = 4, kBoxesAcross = 6;

// A box through shared memory, undone by tile_maps.h's own map, to out[box][row][column].
__global__ void __launch_bounds__(128)
    load_box(const __grid_constant__ CUtensorMap map, bool swizzled, uint16_t* out) {
#if defined(PROBE_SM90A)
  __shared__ __align__(1024) uint8_t tile[kBoxBytes];
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) {
    barrier_init(&barrier, 1);
    barrier_init_fence();
    barrier_expect(&barrier, kBoxBytes);
    tensor_load(tile, &map, static_cast<int>(blockIdx.x) * kBox,
                static_cast<int>(blockIdx.y) * kBox, &barrier);
  }
  __syncthreads();
  barrier_wait(&barrier, 0);
  uint16_t* box = out + (blockIdx.y * gridDim.x + blockIdx.x) * int64_t{kBox * kBox};
  for (int i = static_cast<int>(threadIdx.x); i < kBox * kBox; i += 128) {
    const int row = i / kBox, byte = i % kBox * 2;
    const int at = swizzled ? swizzled_offset(row, byte) : row * kSwizzleRow + byte;
    box[i] = *reinterpret_cast<const uint16_t*>(tile + at);
  }
#else
  __trap();
#endif
}

// Writes row * 1000 + column of every element of the tensor through swizzled boxes.
__global__ void __launch_bounds__(128) store_box(const __grid_constant__ CUtensorMap map) {
#if defined(PROBE_SM90A)
  __shared__ __align__(1024) uint8_t tile[kBoxBytes];
  const int row0 = static_cast<int>(blockIdx.y) * kBox,
            column0 = static_cast<int>(blockIdx.x) * kBox;
  for (int i = static_cast<int>(threadIdx.x); i < kBox * kBox; i += 128) {
    const int row = i / kBox, column = i % kBox;
    *reinterpret_cast<uint16_t*>(tile + swizzled_offset(row, 2 * column)) =
        static_cast<uint16_t>((row0 + row) * 1000 + column0 + column);
  }
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) tensor_store(&map, tile, column0, row0);
#else
  __trap();
#endif
}

// A cluster of two: block 0 loads one box into both.
__global__ void __launch_bounds__(128)
    multicast_box(const __grid_constant__ CUtensorMap map, uint16_t* out) {
#if defined(PROBE_SM90A)
  __shared__ __align__(1024) uint8_t tile[kBoxBytes];
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) {
    barrier_init(&barrier, 1);
    barrier_init_fence();
    barrier_expect(&barrier, kBoxBytes);
  }
  cluster_sync();  // both barriers are armed
  if (threadIdx.x == 0 && cluster_rank() == 0) tensor_load_multicast(tile, &map, 0, 0, &barrier, 3);
  barrier_wait(&barrier, 0);
  for (int i = static_cast<int>(threadIdx.x); i < kBox * kBox; i += 128)
    out[blockIdx.x * kBox * kBox + i] =
        *reinterpret_cast<const uint16_t*>(tile + swizzled_offset(i / kBox, i % kBox * 2));
  cluster_sync();
#else
  __trap();
#endif
}

// Blocks of a cluster read their right neighbour's shared memory, and count into block 0's.
__global__ void __launch_bounds__(128) share_memory(uint32_t blocks, uint32_t* out) {
#if defined(PROBE_SM90A)
  __shared__ uint32_t mine[128], counts[128];
  const uint32_t rank = cluster_rank();
  mine[threadIdx.x] = rank * 1000 + threadIdx.x;
  counts[threadIdx.x] = 0;
  cluster_sync();
  const uint32_t seen = remote_load(&mine[threadIdx.x], (rank + 1) % blocks);
  remote_add(&counts[threadIdx.x], 0, rank + threadIdx.x);
  cluster_sync();
  out[(blockIdx.x * 2 + 0) * 128 + threadIdx.x] = seen;
  out[(blockIdx.x * 2 + 1) * 128 + threadIdx.x] = counts[threadIdx.x];
#else
  __trap();
#endif
}

// `grid` blocks of 128 threads in clusters of `blocks`.
class ClusterLaunch {
 public:
  ClusterLaunch(int grid, int blocks) {
    config_.gridDim = dim3(static_cast<unsigned>(grid));
    config_.blockDim = dim3(128);
    attribute_.id = cudaLaunchAttributeClusterDimension;
    attribute_.val.clusterDim.x = static_cast<unsigned>(blocks);
    attribute_.val.clusterDim.y = attribute_.val.clusterDim.z = 1;
    config_.attrs = &attribute_;
    config_.numAttrs = 1;
  }
  ClusterLaunch(const ClusterLaunch&) = delete;
  ClusterLaunch& operator=(const ClusterLaunch&) = delete;
  const cudaLaunchConfig_t& config() const { return config_; }

 private:
  cudaLaunchConfig_t config_ = {};
  cudaLaunchAttribute attribute_ = {};
};

bool report(const char* what, int wrong, int of) {
  Result("tma")
      .text("kind", what)
      .flag("right", wrong == 0)
      .number("wrong", wrong)
      .number("of", of)
      .print(wrong == 0 ? say("%s: right", what)
                        : say("%s: WRONG in %d of %d values", what, wrong, of));
  return wrong == 0;
}

// A map of the row-major tensor [kRows, kColumns] of 2-byte values, boxes of kBox x kBox.
CUtensorMap make_map(uint16_t* tensor, bool swizzled) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  PROBE_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                               cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || entry == nullptr)
    skip("tma", "the driver has no cuTensorMapEncodeTiled");
  const auto encode = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
  CUtensorMap map;
  const cuuint64_t sizes[2] = {kColumns, kRows}, strides[1] = {kColumns * 2};
  const cuuint32_t box[2] = {kBox, kBox}, steps[2] = {1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, tensor, sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE,
             swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    std::fprintf(stderr, "cuTensorMapEncodeTiled: error %d\n", static_cast<int>(result));
    std::exit(1);
  }
  return map;
}

std::vector<uint16_t> sample_tensor() {
  std::vector<uint16_t> values(size_t{kRows} * kColumns);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i * 40503u + 1);
  return values;
}

bool test_load(bool swizzled) {
  const std::vector<uint16_t> tensor = sample_tensor();
  DeviceArray<uint16_t> source(tensor), out(size_t{kBoxesDown * kBoxesAcross} * kBox * kBox);
  out.poison();
  load_box<<<dim3(kBoxesAcross, kBoxesDown), 128>>>(make_map(source.data(), swizzled), swizzled,
                                                    out.data());
  PROBE_CHECK(cudaGetLastError());
  const std::vector<uint16_t> got = out.read();
  int wrong = 0;
  for (int by = 0; by < kBoxesDown; ++by)
    for (int bx = 0; bx < kBoxesAcross; ++bx)
      for (int i = 0; i < kBox * kBox; ++i) {
        const int row = by * kBox + i / kBox, column = bx * kBox + i % kBox;
        const bool inside = row < kRows && column < kColumns;
        const uint16_t want = inside ? tensor[static_cast<size_t>(row * kColumns + column)] : 0;
        wrong += got[static_cast<size_t>((by * kBoxesAcross + bx) * kBox * kBox + i)] != want;
      }
  return report(swizzled ? "load_swizzled" : "load_plain", wrong, static_cast<int>(got.size()));
}

bool test_store() {
  DeviceArray<uint16_t> target(size_t{kRows} * kColumns);
  target.poison();
  store_box<<<dim3(kBoxesAcross, kBoxesDown), 128>>>(make_map(target.data(), true));
  PROBE_CHECK(cudaGetLastError());
  const std::vector<uint16_t> got = target.read();
  int wrong = 0;
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kColumns; ++c)
      wrong += got[static_cast<size_t>(r * kColumns + c)] != static_cast<uint16_t>(r * 1000 + c);
  return report("store_swizzled", wrong, kRows * kColumns);
}

bool test_multicast() {
  const std::vector<uint16_t> tensor = sample_tensor();
  DeviceArray<uint16_t> source(tensor), out(size_t{2} * kBox * kBox);
  out.poison();
  const ClusterLaunch pair(2, 2);
  PROBE_CHECK(
      cudaLaunchKernelEx(&pair.config(), multicast_box, make_map(source.data(), true), out.data()));
  const std::vector<uint16_t> got = out.read();
  int wrong = 0;
  for (int i = 0; i < 2 * kBox * kBox; ++i) {
    const int row = i / kBox % kBox, column = i % kBox;
    wrong += got[static_cast<size_t>(i)] != tensor[static_cast<size_t>(row * kColumns + column)];
  }
  return report("load_multicast", wrong, 2 * kBox * kBox);
}

bool test_cluster(int blocks) {
  const int grid = 4 * blocks;
  DeviceArray<uint32_t> out(static_cast<size_t>(grid) * 256);
  out.poison();
  if (blocks > 8)
    PROBE_CHECK(
        cudaFuncSetAttribute(share_memory, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  const ClusterLaunch launch(grid, blocks);
  int clusters = 0;
  PROBE_CHECK(cudaOccupancyMaxActiveClusters(&clusters, share_memory, &launch.config()));
  Result("tma")
      .text("kind", "clusters")
      .number("blocks", blocks)
      .number("resident", clusters)
      .print(say("clusters of %d blocks of 128 threads: %d resident at once", blocks, clusters));
  if (clusters == 0) return true;
  PROBE_CHECK(cudaLaunchKernelEx(&launch.config(), share_memory, static_cast<uint32_t>(blocks),
                                 out.data()));
  const std::vector<uint32_t> got = out.read();
  int wrong = 0;
  for (int b = 0; b < grid; ++b)
    for (int t = 0; t < 128; ++t) {
      const int rank = b % blocks;
      const auto seen = static_cast<uint32_t>((rank + 1) % blocks * 1000 + t);
      const auto count =
          static_cast<uint32_t>(rank == 0 ? blocks * (blocks - 1) / 2 + blocks * t : 0);
      wrong += got[static_cast<size_t>(b * 256 + t)] != seen;
      wrong += got[static_cast<size_t>(b * 256 + 128 + t)] != count;
    }
  return report(say("cluster_%d", blocks).c_str(), wrong, grid * 256);
}

}  // namespace
}  // namespace sluice::probe

int main() {
  using namespace sluice::probe;
  open_device("tma", 90, 9);
  bool good = true;
  for (const int blocks : {2, 4, 8, 16}) good = test_cluster(blocks) && good;
  good = test_load(false) && good;
  good = test_load(true) && good;
  good = test_store() && good;
  good = test_multicast() && good;
  return good ? 0 : 1;
}
