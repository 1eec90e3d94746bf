#if defined(SLUICE_CUDA)
#include "device/cuda/cuda_stream.h"

namespace sluice {

// What launch.cuh calls.
cudaStream_t cuda_handle(Stream* stream);
void cuda_note(Stream* stream, cudaError_t error, const char* op);
bool cuda_may_launch(Stream* stream, const char* op, int64_t blocks, size_t shared_bytes);

namespace {

// After one of these the process can use the device no more.
bool context_is_lost(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
      return true;
    default:
      return false;
  }
}

constexpr int64_t kMostBlocks = 0x7fffffff;

}  // namespace

Status driver_too_old(int version) {
  if (version == 0) return not_found("no CUDA driver on this machine");
  return not_found("the CUDA driver supports CUDA {}.{}, this build needs {}.{}", version / 1000,
                   version % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

Status cuda_status(cudaError_t error, std::string_view what) {
  switch (error) {
    case cudaSuccess:
      return ok_status();
    case cudaErrorMemoryAllocation:
      return resource_exhausted("{}: the CUDA device is out of memory", what);
    case cudaErrorNoDevice:
      return not_found("the CUDA driver finds no device");
    case cudaErrorInsufficientDriver: {
      int driver = 0;
      cudaDriverGetVersion(&driver);
      return driver_too_old(driver);
    }
    case cudaErrorNoKernelImageForDevice:
      return unimplemented("{}: this build has no kernel for the device's architecture", what);
    default:
      if (context_is_lost(error))
        return internal_error("{}: fault on the CUDA device: {}; the process cannot use it again",
                              what, cudaGetErrorString(error));
      return internal_error("{}: CUDA: {}", what, cudaGetErrorString(error));
  }
}

CudaStream::~CudaStream() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

void CudaStream::note(cudaError_t error, const char* op) {
  if (error != cudaSuccess && failure_.ok()) failure_ = cuda_status(error, op);
}

bool CudaStream::may_launch(const char* op, int64_t blocks, size_t shared_bytes) {
  if (!failure_.ok()) return false;
  if (blocks > kMostBlocks)
    failure_ =
        invalid_argument("{}: {} thread blocks, a launch has at most {}", op, blocks, kMostBlocks);
  else if (shared_bytes > shared_limit_)
    failure_ = unimplemented("{}: needs {} bytes of shared memory, the device has {}", op,
                             shared_bytes, shared_limit_);
  return failure_.ok();
}

Status CudaStream::synchronize() {
  note(cudaStreamSynchronize(stream_), "synchronize");
  Status failure = std::move(failure_);
  failure_ = ok_status();
  return failure;
}

Status CudaStream::begin_capture() {
  return cuda_status(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture");
}

Result<std::unique_ptr<Graph>> CudaStream::end_capture() {
  cudaGraph_t graph = nullptr;
  note(cudaStreamEndCapture(stream_, &graph), "capture");
  cudaGraphExec_t executable = nullptr;
  if (failure_.ok()) note(cudaGraphInstantiate(&executable, graph, 0), "capture");
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (!failure_.ok()) {
    Status failure = std::move(failure_);
    failure_ = ok_status();
    return failure;
  }
  return std::unique_ptr<Graph>(std::make_unique<CudaGraph>(executable));
}

cudaStream_t cuda_handle(Stream* stream) {
  return cuda_stream(stream).handle();
}

void cuda_note(Stream* stream, cudaError_t error, const char* op) {
  cuda_stream(stream).note(error, op);
}

bool cuda_may_launch(Stream* stream, const char* op, int64_t blocks, size_t shared_bytes) {
  return cuda_stream(stream).may_launch(op, blocks, shared_bytes);
}

CudaGraph::~CudaGraph() {
  cudaGraphExecDestroy(graph_);
}

Status CudaGraph::launch(Stream& stream) {
  CudaStream& s = cuda_stream(&stream);
  s.note(cudaGraphLaunch(graph_, s.handle()), "graph launch");
  return ok_status();
}

}  // namespace sluice
#endif
