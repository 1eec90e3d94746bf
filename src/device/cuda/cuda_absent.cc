// A build without nvcc.
#if !defined(SLUICE_CUDA)
#include "device/cuda/cuda.h"

namespace sluice {
namespace {

Status absent() {
  return unimplemented("this build has no CUDA kernels (nvcc was not found when it was made)");
}

}  // namespace

bool cuda_built() {
  return false;
}

Result<std::vector<CudaDeviceInfo>> list_cuda_devices() {
  return absent();
}

Result<std::unique_ptr<Device>> make_cuda_device(int) {
  return absent();
}

}  // namespace sluice
#endif
