#include <charconv>

#include "base/topology.h"
#include "device/cuda/cuda.h"
#include "device/device.h"

namespace sluice {
namespace {

// The number of "cuda:N"; "cuda" is 0, anything else is no CUDA device.
Result<int> cuda_index(const std::string& text) {
  if (text == "cuda") return 0;
  constexpr std::string_view kPrefix = "cuda:";
  int index = -1;
  if (text.starts_with(kPrefix)) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + kPrefix.size(), end, index);
    if (error == std::errc() && stop == end && index >= 0) return index;
  }
  return invalid_argument("device: expected cpu, cuda, cuda:N or auto, got \"{}\"", text);
}

}  // namespace

Result<std::unique_ptr<Runtime>> Runtime::create(const RuntimeOptions& options) {
  if (options.threads < 0 || options.threads > 1024)
    return invalid_argument("threads: expected 0 (all cores) to 1024, got {}", options.threads);
  const int threads = options.threads > 0 ? options.threads : available_cores();
  if (options.device == "cuda_host") return emulated(make_emulated_cuda_device(), threads);
  auto runtime = std::make_unique<Runtime>();
  SLUICE_ASSIGN_OR_RETURN(runtime->isa_, choose_isa());
  const bool automatic = options.device == "auto";
  if (automatic ? list_cuda_devices().ok() : options.device != "cpu") {
    SLUICE_ASSIGN_OR_RETURN(const int index, cuda_index(automatic ? "cuda" : options.device));
    SLUICE_ASSIGN_OR_RETURN(runtime->device_, make_cuda_device(index));
    SLUICE_ASSIGN_OR_RETURN(runtime->stream_, runtime->device_->make_stream());
    runtime->host_ = make_cpu_device();
    runtime->isa_ = Isa::kCuda;
  } else {
    runtime->device_ = make_cpu_device();
  }
  runtime->pool_ = std::make_unique<ThreadPool>(threads);
  return runtime;
}

Result<std::unique_ptr<Runtime>> Runtime::emulated(std::unique_ptr<Device> device, int threads) {
  auto runtime = std::make_unique<Runtime>();
  runtime->device_ = std::move(device);
  SLUICE_ASSIGN_OR_RETURN(runtime->stream_, runtime->device_->make_stream());
  runtime->host_ = make_cpu_device();
  runtime->isa_ = Isa::kCudaHost;
  runtime->pool_ = std::make_unique<ThreadPool>(threads);
  return runtime;
}

}  // namespace sluice
