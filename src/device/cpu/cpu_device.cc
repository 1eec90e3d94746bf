// The CPU as a Device: anonymous mappings, zero-filled by the kernel, huge pages where they fit.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/topology.h"
#include "device/device.h"

namespace sluice {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;

class CpuDevice : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  const std::string& name() const override { return name_; }

  Result<Buffer> allocate(size_t bytes, std::string_view what) override {
    if (bytes == 0) return Buffer(this, nullptr, 0);
    if (bytes > memory_limit_bytes())
      return resource_exhausted("{}: {} bytes asked for, the machine has {}", what, bytes,
                                memory_limit_bytes());
    const size_t mapped = mapped_bytes(bytes);
    void* p = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      return resource_exhausted("{}: {} bytes asked for: {}", what, bytes, std::strerror(errno));
    if (mapped >= kHugePage)
      ::madvise(p, mapped, MADV_HUGEPAGE);  // advice only: failure is harmless
    const size_t now = allocated_.fetch_add(bytes) + bytes;
    size_t peak = peak_.load();
    while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
    }
    return Buffer(this, static_cast<std::byte*>(p), bytes);
  }

  void release(std::byte* data, size_t bytes) override {
    if (data == nullptr) return;
    ::munmap(data, mapped_bytes(bytes));
    allocated_.fetch_sub(bytes);
  }

  size_t allocated_bytes() const override { return allocated_.load(); }
  size_t peak_bytes() const override { return peak_.load(); }

 private:
  // Kernels may read one vector past a row's end: a page of slack is always there.
  static size_t mapped_bytes(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage + kPage; }

  std::string name_ = "cpu";
  std::atomic<size_t> allocated_{0}, peak_{0};
};

}  // namespace

std::unique_ptr<Device> make_cpu_device() {
  return std::make_unique<CpuDevice>();
}

Result<std::unique_ptr<Runtime>> Runtime::create(const RuntimeOptions& options) {
  if (options.threads < 0 || options.threads > 1024)
    return invalid_argument("threads: expected 0 (all cores) to 1024, got {}", options.threads);
  auto runtime = std::make_unique<Runtime>();
  SLUICE_ASSIGN_OR_RETURN(runtime->isa_, choose_isa());
  runtime->device_ = make_cpu_device();
  runtime->pool_ =
      std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : available_cores());
  return runtime;
}

}  // namespace sluice
