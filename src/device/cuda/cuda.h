// CUDA devices, seen from code that knows no CUDA header.
//
// The runtime library is linked statically and looks for the driver when it is first called: the
// same program starts on a machine without one and says so. A build without nvcc has the same
// functions; they answer that it has no CUDA kernels.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/device.h"

namespace sluice {

struct CudaDeviceInfo {
  int index = 0;
  std::string name;  // a MIG slice says so in its name
  int major = 0, minor = 0;
  size_t memory_bytes = 0;
  int processors = 0;
};

// Whether this build has CUDA kernels at all.
bool cuda_built();
// Every device that this build's kernels can run on. Errors, one sentence each: no CUDA in this
// build, no driver, a driver older than the build needs, no device.
Result<std::vector<CudaDeviceInfo>> list_cuda_devices();
// The device with that number; an unknown number is answered with those that exist.
Result<std::unique_ptr<Device>> make_cuda_device(int index);
// The CPU in the place of a GPU: runs kernel bodies on the host, needs no CUDA in the build.
std::unique_ptr<Device> make_emulated_cuda_device();

}  // namespace sluice
