// A device that is the CPU but is treated as a GPU: everything goes through uploads, downloads and
// staging, and its ops run the bodies of the CUDA kernels (Isa::kCudaHost).
#include "device/cuda/cuda.h"

namespace sluice {
namespace {

class EmulatedCudaDevice : public Device {
 public:
  EmulatedCudaDevice() : cpu_(make_cpu_device()) {}
  DeviceKind kind() const override { return DeviceKind::kCuda; }
  const std::string& name() const override { return name_; }
  Result<Buffer> allocate(size_t bytes, std::string_view what) override {
    return cpu_->allocate(bytes, what);
  }
  void release(std::byte* data, size_t bytes) override { cpu_->release(data, bytes); }
  size_t allocated_bytes() const override { return cpu_->allocated_bytes(); }
  size_t peak_bytes() const override { return cpu_->peak_bytes(); }
  size_t memory_bytes() const override { return cpu_->memory_bytes(); }
  Status upload(std::byte* to, const void* from, size_t bytes, Stream* stream) override {
    return cpu_->upload(to, from, bytes, stream);
  }
  Status download(void* to, const std::byte* from, size_t bytes, Stream* stream) override {
    return cpu_->download(to, from, bytes, stream);
  }
  Result<std::unique_ptr<Stream>> make_stream() override { return cpu_->make_stream(); }
  Result<std::unique_ptr<StreamEvent>> make_event() override { return cpu_->make_event(); }
  Result<std::shared_ptr<std::byte>> allocate_staging(size_t bytes,
                                                      std::string_view what) override {
    return cpu_->allocate_staging(bytes, what);
  }

 private:
  std::unique_ptr<Device> cpu_;
  std::string name_ = "cuda_host";
};

}  // namespace

std::unique_ptr<Device> make_emulated_cuda_device() {
  return std::make_unique<EmulatedCudaDevice>();
}

}  // namespace sluice
