// What a person reads when CUDA fails, each failure in one sentence; and the --device names.
#include <gtest/gtest.h>

#include "device/cuda/cuda.h"
#if defined(SLUICE_CUDA)
#include "device/cuda/cuda_stream.h"
#endif

namespace sluice {
namespace {

std::string failure_of(const std::string& device) {
  const auto runtime = Runtime::create({.threads = 1, .device = device});
  return runtime.ok() ? "" : runtime.status().message();
}

TEST(CudaDevices, NamesThatAreNoDeviceAreRefused) {
  for (const char* name :
       {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CUDA", "cuda:99999999999"})
    EXPECT_NE(failure_of(name).find("expected cpu, cuda, cuda:N or auto"), std::string::npos)
        << name << " | " << failure_of(name);
  EXPECT_EQ(failure_of("cpu"), "");
  EXPECT_EQ(failure_of("auto"), "");
  EXPECT_EQ(failure_of("cuda_host"), "");
}

TEST(CudaDevices, AMachineWithoutOneSaysWhy) {
  const auto devices = list_cuda_devices();
  if (devices.ok()) {
    EXPECT_NE(failure_of("cuda:4096").find("no such device; usable here: "), std::string::npos);
    return;
  }
  EXPECT_FALSE(devices.status().message().empty());
  EXPECT_EQ(failure_of("cuda"), devices.status().message());
  EXPECT_EQ(failure_of("cuda:7"), devices.status().message());
}

#if defined(SLUICE_CUDA)
TEST(CudaStatus, EachFailureIsASentence) {
  EXPECT_TRUE(cuda_status(cudaSuccess, "rope").ok());
  const auto code = [](cudaError_t e) { return cuda_status(e, "rope").code(); };
  const auto message = [](cudaError_t e) { return cuda_status(e, "rope").message(); };
  EXPECT_EQ(code(cudaErrorMemoryAllocation), StatusCode::kResourceExhausted);
  EXPECT_EQ(message(cudaErrorMemoryAllocation), "rope: the CUDA device is out of memory");
  EXPECT_EQ(code(cudaErrorNoDevice), StatusCode::kNotFound);
  EXPECT_EQ(code(cudaErrorInsufficientDriver), StatusCode::kNotFound);
  EXPECT_NE(message(cudaErrorInsufficientDriver).find("CUDA driver"), std::string::npos);
  EXPECT_EQ(code(cudaErrorNoKernelImageForDevice), StatusCode::kUnimplemented);
  EXPECT_NE(message(cudaErrorIllegalAddress).find("rope: fault on the CUDA device"),
            std::string::npos);
  EXPECT_NE(message(cudaErrorIllegalAddress).find("cannot use it again"), std::string::npos);
  EXPECT_EQ(message(cudaErrorInvalidValue).find("cannot use it again"), std::string::npos);
}

TEST(CudaStatus, ADriverThatIsMissingOrTooOldIsNamed) {
  EXPECT_EQ(driver_too_old(0).message(), "no CUDA driver on this machine");
  EXPECT_EQ(driver_too_old(11080).message(),
            "the CUDA driver supports CUDA 11.8, this build needs " +
                std::to_string(CUDART_VERSION / 1000) + "." +
                std::to_string(CUDART_VERSION % 1000 / 10));
}

TEST(CudaStatus, ADeviceThatIsNotThereIsAnsweredWithThoseThatAre) {
  // A slice of a device is one by its name; number 1 is too old for this build, so not listed.
  const std::vector<CudaDeviceInfo> devices = {{0, "NVIDIA H200 MIG 1g.18gb", 9, 0, 0, 16},
                                               {2, "NVIDIA A100", 8, 0, 0, 108}};
  ASSERT_TRUE(pick_device(devices, 2).ok());
  EXPECT_EQ(pick_device(devices, 2)->name, "NVIDIA A100");
  for (const int index : {1, 3})
    EXPECT_EQ(pick_device(devices, index).status().message(),
              "cuda:" + std::to_string(index) +
                  ": no such device; usable here: 0 (NVIDIA H200 MIG 1g.18gb), 2 (NVIDIA A100)");
}

TEST(CudaStatus, AStreamKeepsItsFirstFailureAndLaunchesNothingAfterIt) {
  // No device is touched: a stream that never got a handle notes failures all the same.
  CudaStream stream(0, nullptr, 48 << 10);
  EXPECT_TRUE(stream.may_launch("rope", 10, 1024));
  EXPECT_FALSE(stream.may_launch("attention", 10, size_t{1} << 20));
  stream.note(cudaErrorIllegalAddress, "sample");
  EXPECT_FALSE(stream.may_launch("rope", 10, 0));
  EXPECT_EQ(stream.synchronize().message(),
            "attention: needs 1048576 bytes of shared memory, the device has 49152");
  EXPECT_FALSE(CudaStream(0, nullptr, 48 << 10).may_launch("embed", int64_t{1} << 31, 0));
}
#endif

}  // namespace
}  // namespace sluice
