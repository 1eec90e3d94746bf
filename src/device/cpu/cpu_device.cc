// The CPU as a Device: anonymous mappings, zero-filled by the kernel, huge pages where they fit.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/topology.h"
#include "device/device.h"

namespace sluice {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;

// Work is done when it is queued, so there is never any to wait for.
class CpuStream : public Stream {
 public:
  Status synchronize() override { return ok_status(); }
  Status begin_capture() override { return unimplemented("cpu: a CPU stream records no graph"); }
  Result<std::unique_ptr<Graph>> end_capture() override { return begin_capture(); }
};

class CpuEvent : public StreamEvent {
 public:
  Status record(Stream&) override {
    at_ = std::chrono::steady_clock::now();
    return ok_status();
  }
  Status wait() override { return ok_status(); }
  Result<double> milliseconds_since(const StreamEvent& start) override {
    return std::chrono::duration<double, std::milli>(at_ - static_cast<const CpuEvent&>(start).at_)
        .count();
  }

 private:
  std::chrono::steady_clock::time_point at_{};
};

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
  size_t memory_bytes() const override { return memory_limit_bytes(); }

  Status upload(std::byte* to, const void* from, size_t bytes, Stream*) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return ok_status();
  }
  Status download(void* to, const std::byte* from, size_t bytes, Stream*) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return ok_status();
  }
  Result<std::unique_ptr<Stream>> make_stream() override {
    return std::unique_ptr<Stream>(std::make_unique<CpuStream>());
  }
  Result<std::unique_ptr<StreamEvent>> make_event() override {
    return std::unique_ptr<StreamEvent>(std::make_unique<CpuEvent>());
  }
  Result<std::shared_ptr<std::byte>> allocate_staging(size_t bytes,
                                                      std::string_view what) override {
    SLUICE_ASSIGN_OR_RETURN(Buffer buffer, allocate(bytes, what));
    const auto owner = std::make_shared<Buffer>(std::move(buffer));
    return std::shared_ptr<std::byte>(owner, owner->data());
  }

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

}  // namespace sluice
