#if defined(SLUICE_CUDA)
#include <atomic>

#include "device/cuda/cuda.h"
#include "device/cuda/cuda_stream.h"

namespace sluice {
namespace {

// The oldest architecture that the build has machine code for (cmake/sluice.cmake).
constexpr int kLeastMajor = 8;

class CudaDevice : public Device {
 public:
  CudaDevice(const CudaDeviceInfo& info, size_t shared_limit)
      : info_(info),
        name_(fmt::format("cuda:{} ({})", info.index, info.name)),
        shared_limit_(shared_limit) {}

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  const std::string& name() const override { return name_; }

  // From the device's stream-ordered pool, which keeps what is given back.
  Result<Buffer> allocate(size_t bytes, std::string_view what) override {
    if (bytes == 0) return Buffer(this, nullptr, 0);
    SLUICE_RETURN_IF_ERROR(cuda_status(cudaSetDevice(info_.index), what));
    void* p = nullptr;
    const cudaError_t error = cudaMallocAsync(&p, bytes, cudaStreamPerThread);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // not sticky: clear it
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      return resource_exhausted("{}: {} bytes asked for on {}, {} of {} are free", what, bytes,
                                name_, free, total);
    }
    SLUICE_RETURN_IF_ERROR(cuda_status(error, what));
    Buffer buffer(this, static_cast<std::byte*>(p), bytes);
    count(bytes);
    SLUICE_RETURN_IF_ERROR(cuda_status(cudaMemsetAsync(p, 0, bytes, cudaStreamPerThread), what));
    SLUICE_RETURN_IF_ERROR(cuda_status(cudaStreamSynchronize(cudaStreamPerThread), what));
    return buffer;
  }
  void release(std::byte* data, size_t bytes) override {
    if (data == nullptr) return;
    // Work on other streams may still read it.
    cudaSetDevice(info_.index);
    cudaDeviceSynchronize();
    cudaFreeAsync(data, cudaStreamPerThread);
    allocated_.fetch_sub(bytes);
  }

  size_t allocated_bytes() const override { return allocated_.load(); }
  size_t peak_bytes() const override { return peak_.load(); }
  size_t memory_bytes() const override { return info_.memory_bytes; }

  Status upload(std::byte* to, const void* from, size_t bytes, Stream* stream) override {
    return copy(to, from, bytes, cudaMemcpyHostToDevice, stream, "upload");
  }
  Status download(void* to, const std::byte* from, size_t bytes, Stream* stream) override {
    return copy(to, from, bytes, cudaMemcpyDeviceToHost, stream, "download");
  }

  Result<std::unique_ptr<Stream>> make_stream() override {
    SLUICE_RETURN_IF_ERROR(cuda_status(cudaSetDevice(info_.index), "stream"));
    cudaStream_t stream = nullptr;
    SLUICE_RETURN_IF_ERROR(
        cuda_status(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream"));
    return std::unique_ptr<Stream>(
        std::make_unique<CudaStream>(info_.index, stream, shared_limit_));
  }
  Result<std::unique_ptr<StreamEvent>> make_event() override;
  Result<std::shared_ptr<std::byte>> allocate_staging(size_t bytes,
                                                      std::string_view what) override {
    void* p = nullptr;
    SLUICE_RETURN_IF_ERROR(
        cuda_status(cudaHostAlloc(&p, bytes == 0 ? 1 : bytes, cudaHostAllocDefault), what));
    return std::shared_ptr<std::byte>(static_cast<std::byte*>(p),
                                      [](std::byte* b) { cudaFreeHost(b); });
  }

 private:
  Status copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Stream* stream,
              const char* what) {
    if (bytes == 0) return ok_status();
    if (stream != nullptr) {
      CudaStream& s = cuda_stream(stream);
      s.note(cudaMemcpyAsync(to, from, bytes, kind, s.handle()), what);
      return ok_status();
    }
    SLUICE_RETURN_IF_ERROR(cuda_status(cudaSetDevice(info_.index), what));
    return cuda_status(cudaMemcpy(to, from, bytes, kind), what);
  }
  void count(size_t bytes) {
    const size_t now = allocated_.fetch_add(bytes) + bytes;
    size_t peak = peak_.load();
    while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
    }
  }

  CudaDeviceInfo info_;
  std::string name_;
  size_t shared_limit_;
  std::atomic<size_t> allocated_{0}, peak_{0};
};

class CudaEvent : public StreamEvent {
 public:
  explicit CudaEvent(cudaEvent_t event) : event_(event) {}
  ~CudaEvent() override { cudaEventDestroy(event_); }
  Status record(Stream& stream) override {
    return cuda_status(cudaEventRecord(event_, cuda_stream(&stream).handle()), "event");
  }
  Status wait() override { return cuda_status(cudaEventSynchronize(event_), "event"); }
  Result<double> milliseconds_since(const StreamEvent& start) override {
    float ms = 0;
    SLUICE_RETURN_IF_ERROR(cuda_status(
        cudaEventElapsedTime(&ms, static_cast<const CudaEvent&>(start).event_, event_), "event"));
    return double{ms};
  }

 private:
  cudaEvent_t event_;
};

Result<std::unique_ptr<StreamEvent>> CudaDevice::make_event() {
  SLUICE_RETURN_IF_ERROR(cuda_status(cudaSetDevice(info_.index), "event"));
  cudaEvent_t event = nullptr;
  SLUICE_RETURN_IF_ERROR(cuda_status(cudaEventCreate(&event), "event"));
  return std::unique_ptr<StreamEvent>(std::make_unique<CudaEvent>(event));
}

Result<CudaDeviceInfo> describe(int index) {
  cudaDeviceProp properties;
  SLUICE_RETURN_IF_ERROR(cuda_status(cudaGetDeviceProperties(&properties, index), "CUDA"));
  return CudaDeviceInfo{index,
                        properties.name,
                        properties.major,
                        properties.minor,
                        properties.totalGlobalMem,
                        properties.multiProcessorCount};
}

}  // namespace

bool cuda_built() {
  return true;
}

Result<std::vector<CudaDeviceInfo>> list_cuda_devices() {
  int count = 0;
  SLUICE_RETURN_IF_ERROR(cuda_status(cudaGetDeviceCount(&count), "CUDA"));
  std::vector<CudaDeviceInfo> devices;
  for (int i = 0; i < count; ++i) {
    SLUICE_ASSIGN_OR_RETURN(CudaDeviceInfo info, describe(i));
    if (info.major >= kLeastMajor) devices.push_back(std::move(info));
  }
  if (devices.empty())
    return not_found("{} CUDA device(s), none of compute capability {}.0 or newer", count,
                     kLeastMajor);
  return devices;
}

Result<CudaDeviceInfo> pick_device(const std::vector<CudaDeviceInfo>& devices, int index) {
  std::string known;
  for (const CudaDeviceInfo& d : devices) {
    if (d.index == index) return d;
    known += fmt::format("{}{} ({})", known.empty() ? "" : ", ", d.index, d.name);
  }
  return invalid_argument("cuda:{}: no such device; usable here: {}", index, known);
}

Result<std::unique_ptr<Device>> make_cuda_device(int index) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<CudaDeviceInfo> devices, list_cuda_devices());
  SLUICE_ASSIGN_OR_RETURN(const CudaDeviceInfo info, pick_device(devices, index));
  SLUICE_RETURN_IF_ERROR(cuda_status(cudaSetDevice(index), "CUDA"));
  int shared = 0;
  SLUICE_RETURN_IF_ERROR(cuda_status(
      cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index), "CUDA"));
  cudaMemPool_t pool = nullptr;
  SLUICE_RETURN_IF_ERROR(cuda_status(cudaDeviceGetDefaultMemPool(&pool, index), "CUDA"));
  uint64_t keep = UINT64_MAX;
  SLUICE_RETURN_IF_ERROR(
      cuda_status(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "CUDA"));
  return std::unique_ptr<Device>(std::make_unique<CudaDevice>(info, static_cast<size_t>(shared)));
}

}  // namespace sluice
#endif
