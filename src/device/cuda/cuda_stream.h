// CudaStream: a cudaStream_t with a memory for the first thing that went wrong on it.
//
// Launches return nothing; the first failure is kept with the name of its op and surfaces at
// synchronize(), and nothing is launched after it.
#pragma once

#include <cuda_runtime.h>

#include "device/cuda/cuda.h"
#include "device/device.h"

namespace sluice {

// A CUDA failure as a sentence; `what` names the op or the call.
Status cuda_status(cudaError_t error, std::string_view what);

// Why a driver of this CUDA version does not do: 0 is none at all.
Status driver_too_old(int version);

// The device with that number; an unknown one is answered with those that are usable.
Result<CudaDeviceInfo> pick_device(const std::vector<CudaDeviceInfo>& devices, int index);

class CudaStream : public Stream {
 public:
  CudaStream(int device, cudaStream_t stream, size_t shared_limit)
      : device_(device), stream_(stream), shared_limit_(shared_limit) {}
  ~CudaStream() override;

  Status synchronize() override;
  Status begin_capture() override;
  Result<std::unique_ptr<Graph>> end_capture() override;

  cudaStream_t handle() const { return stream_; }
  // Keeps the first failure.
  void note(cudaError_t error, const char* op);
  // False after a failure, or when the launch would break a limit of the device (then noted).
  bool may_launch(const char* op, int64_t blocks, size_t shared_bytes);

 private:
  int device_;
  cudaStream_t stream_;
  size_t shared_limit_;
  Status failure_;
};

class CudaGraph : public Graph {
 public:
  explicit CudaGraph(cudaGraphExec_t graph) : graph_(graph) {}
  ~CudaGraph() override;
  Status launch(Stream& stream) override;

 private:
  cudaGraphExec_t graph_;
};

inline CudaStream& cuda_stream(Stream* stream) {
  return static_cast<CudaStream&>(*stream);
}

}  // namespace sluice
