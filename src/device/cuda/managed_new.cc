// Linked into the op tests of a CUDA build: where there is a CUDA device, operator new takes memory
// that the host and the device share, so that the one test table of an op serves its CUDA rows with
// the very arrays it gives to the others. Without a device it is malloc.
#if defined(SLUICE_CUDA)
#include <cuda_runtime.h>

#include <cstdlib>
#include <memory_resource>
#include <new>

namespace {

// One region, taken once: a test's arrays are megabytes.
constexpr std::size_t kRegion = std::size_t{2} << 30;
constexpr std::size_t kHeader = 16;

std::pmr::memory_resource* shared_memory() {
  static std::pmr::memory_resource* const resource = []() -> std::pmr::memory_resource* {
    int devices = 0;
    void* region = nullptr;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 ||
        cudaMallocManaged(&region, kRegion) != cudaSuccess)
      return nullptr;
    // Placed by hand and never destroyed: statics free memory until the very end.
    void* place = std::malloc(sizeof(std::pmr::monotonic_buffer_resource));
    auto* arena = new (place)
        std::pmr::monotonic_buffer_resource(region, kRegion, std::pmr::null_memory_resource());
    place = std::malloc(sizeof(std::pmr::synchronized_pool_resource));
    return new (place) std::pmr::synchronized_pool_resource(
        {.max_blocks_per_chunk = 0, .largest_required_pool_block = std::size_t{64} << 20}, arena);
  }();
  return resource;
}

// The header before each allocation: its size, 0 for malloc's.
void* take(std::size_t size, std::size_t align) {
  const std::size_t pad = align < kHeader ? kHeader : align;
  void* base = nullptr;
  std::pmr::memory_resource* shared = shared_memory();
  if (shared != nullptr)
    base = shared->allocate(size + pad, pad);
  else if (posix_memalign(&base, pad, size + pad) != 0)
    throw std::bad_alloc();
  auto* user = static_cast<char*>(base) + pad;
  auto* header = reinterpret_cast<std::size_t*>(user - kHeader);
  header[0] = shared != nullptr ? size + pad : 0;
  header[1] = pad;
  return user;
}

void give(void* user) noexcept {
  if (user == nullptr) return;
  const auto* header = reinterpret_cast<std::size_t*>(static_cast<char*>(user) - kHeader);
  const std::size_t size = header[0], pad = header[1];
  void* base = static_cast<char*>(user) - pad;
  if (size != 0)
    shared_memory()->deallocate(base, size, pad);
  else
    std::free(base);
}

}  // namespace

void* operator new(std::size_t size) {
  return take(size, kHeader);
}
void* operator new[](std::size_t size) {
  return take(size, kHeader);
}
void* operator new(std::size_t size, std::align_val_t align) {
  return take(size, static_cast<std::size_t>(align));
}
void* operator new[](std::size_t size, std::align_val_t align) {
  return take(size, static_cast<std::size_t>(align));
}
void operator delete(void* p) noexcept {
  give(p);
}
void operator delete[](void* p) noexcept {
  give(p);
}
void operator delete(void* p, std::size_t) noexcept {
  give(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  give(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  give(p);
}
void operator delete[](void* p, std::align_val_t) noexcept {
  give(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  give(p);
}
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept {
  give(p);
}
#endif
