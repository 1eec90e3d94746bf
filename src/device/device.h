// Device, Buffer and the context that every op runs in.
//
// The CPU is a device like any other: memory comes from its allocator (aligned, huge pages where
// they help, counted), work runs on its pool. Nothing here is global: a Runtime owns devices and
// pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "base/thread_pool.h"
#include "simd/isa.h"

namespace sluice {

enum class DeviceKind { kCpu, kCuda };

class Device;

// Owned device memory; freed on destruction.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device* device, std::byte* data, size_t bytes)
      : device_(device), data_(data), bytes_(bytes) {}
  Buffer(Buffer&& o) noexcept { *this = std::move(o); }
  Buffer& operator=(Buffer&& o) noexcept;
  ~Buffer();

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// Recorded work of a stream, replayed as one launch.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual Status launch(class Stream& stream) = 0;
};

// An ordered queue of work on a device. CPU streams run each op to its end before it returns; a
// device's first failure is kept, with the op's name, and returned by synchronize().
class Stream {
 public:
  virtual ~Stream() = default;
  virtual Status synchronize() = 0;
  // Between the two, work is recorded and not done.
  virtual Status begin_capture() = 0;
  virtual Result<std::unique_ptr<Graph>> end_capture() = 0;
};

// A point in a stream's work.
class StreamEvent {
 public:
  virtual ~StreamEvent() = default;
  virtual Status record(Stream& stream) = 0;
  virtual Status wait() = 0;
  virtual Result<double> milliseconds_since(const StreamEvent& start) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual const std::string& name() const = 0;
  // Zero-filled, aligned to 64 bytes at least; a failure names the bytes asked for.
  virtual Result<Buffer> allocate(size_t bytes, std::string_view what) = 0;
  virtual void release(std::byte* data, size_t bytes) = 0;
  // Bytes now allocated here, and the most there ever were.
  virtual size_t allocated_bytes() const = 0;
  virtual size_t peak_bytes() const = 0;
  // What the device has in all.
  virtual size_t memory_bytes() const = 0;
  // Copies between host memory and the device's, in the order of `stream` (null: done on return).
  // Host memory of a queued copy must outlive it, and is copied aside unless it is staging memory.
  virtual Status upload(std::byte* to, const void* from, size_t bytes, Stream* stream) = 0;
  virtual Status download(void* to, const std::byte* from, size_t bytes, Stream* stream) = 0;
  virtual Result<std::unique_ptr<Stream>> make_stream() = 0;
  virtual Result<std::unique_ptr<StreamEvent>> make_event() = 0;
  // Host memory that the device copies from and to without a detour.
  virtual Result<std::shared_ptr<std::byte>> allocate_staging(size_t bytes,
                                                              std::string_view what) = 0;
};

std::unique_ptr<Device> make_cpu_device();

// What an op needs to know of its surroundings.
struct ExecContext {
  Device* device = nullptr;
  Stream* stream = nullptr;    // null: the device's default stream
  ThreadPool* pool = nullptr;  // CPU only
  Isa isa = Isa::kReference;   // the widest kernels allowed
};

// Scratch memory that the caller lends for one call: sized once by an op's workspace_bytes() for
// the largest shape, 64-byte aligned, contents undefined before and after.
struct Workspace {
  std::byte* data = nullptr;
  size_t bytes = 0;
};

// Carves aligned arrays out of a Workspace, in the same order as its size was added up.
class WorkspaceCarver {
 public:
  explicit WorkspaceCarver(Workspace w) : data_(w.data), left_(w.bytes) {}
  // nullptr when the workspace is too small.
  template <class T>
  T* take(int64_t count) {
    const size_t bytes = padded(static_cast<size_t>(count) * sizeof(T));
    if (bytes > left_) return nullptr;
    T* p = reinterpret_cast<T*>(data_);
    data_ += bytes;
    left_ -= bytes;
    return p;
  }
  static constexpr size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  std::byte* data_;
  size_t left_;
};

// Whether an op may read its arguments' arrays itself; else they are the device's.
inline bool on_host(const ExecContext& context) {
  return !is_cuda(context.isa);
}

// Owns what a process needs once: the device, the pool, the chosen ISA.
struct RuntimeOptions {
  int threads = 0;  // 0: one per available core (cgroup and affinity respected)
  // cpu | cuda | cuda:N | auto (the first CUDA device where there is one, else the CPU) |
  // cuda_host (the CUDA kernels' bodies on the CPU, slowly: for tests)
  std::string device = "cpu";
};
class Runtime {
 public:
  static Result<std::unique_ptr<Runtime>> create(const RuntimeOptions& options);
  // "cuda_host" with a device of the caller's: tests of what a device may do in a run.
  static Result<std::unique_ptr<Runtime>> emulated(std::unique_ptr<Device> device, int threads);
  // Where steps run.
  Device& device() { return *device_; }
  // Where files are read and weights are packed; the same unless a GPU runs the steps.
  Device& host() { return host_ != nullptr ? *host_ : *device_; }
  ThreadPool& pool() { return *pool_; }
  Isa isa() const { return isa_; }
  ExecContext context() { return {device_.get(), stream_.get(), pool_.get(), isa_}; }

 private:
  std::unique_ptr<Device> device_, host_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<ThreadPool> pool_;
  Isa isa_ = Isa::kReference;
};

}  // namespace sluice
