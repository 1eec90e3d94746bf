// probe_launch: what a launch costs: empty kernels and kernels that wait for one another, from a
// stream and from a graph, with and without programmatic dependent launch (PDL).
//
// Every chained kernel adds one to a counter that its predecessor wrote, so a chain that overlapped
// where it must not would end in a wrong number. Self-check: the counter.
#include <chrono>

#include "bench/gpu/probe.h"

namespace sluice::probe {
namespace {

__global__ void empty_kernel() {}

// One more than what the kernel before it left; a wrong predecessor value is kept in counter[1].
__global__ void chained_kernel(int* counter, int index, bool dependent) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (dependent) {
    cudaTriggerProgrammaticLaunchCompletion();  // the successor may be set up from now on
    cudaGridDependencySynchronize();            // all that the predecessor wrote is here
  }
#endif
  if (threadIdx.x != 0 || blockIdx.x != 0) return;
  if (counter[0] != index) counter[1] = 1;
  counter[0] = index + 1;
}

// dependent: the kernel declares that it may start while its predecessor ends.
void launch_chained(cudaStream_t stream, int blocks, int* counter, int index, bool dependent) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(128);
  config.stream = stream;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = dependent ? 1 : 0;
  PROBE_CHECK(cudaLaunchKernelEx(&config, chained_kernel, counter, index, dependent));
}

class Launches {
 public:
  explicit Launches(const cudaDeviceProp& device) : device_(device), counter_(2) {
    PROBE_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~Launches() { cudaStreamDestroy(stream_); }

  void empty(int count) {
    const auto work = [&] {
      for (int i = 0; i < count; ++i) empty_kernel<<<1, 32, 0, stream_>>>();
    };
    report("empty_stream", count, 1, median_us(stream_, 30, work));
    PROBE_CHECK(cudaGetLastError());
    report("empty_graph", count, 1, graph_us(work));
  }

  bool chained(int count, int blocks, bool dependent) {
    const auto work = [&] {
      PROBE_CHECK(cudaMemsetAsync(counter_.data(), 0, 8, stream_));
      for (int i = 0; i < count; ++i)
        launch_chained(stream_, blocks, counter_.data(), i, dependent && i > 0);
    };
    const std::string pdl = dependent ? "_pdl" : "";
    bool good = true;
    report("chained_stream" + pdl, count, blocks, median_us(stream_, 30, work));
    good = counted("chained_stream" + pdl, count) && good;
    report("chained_graph" + pdl, count, blocks, graph_us(work));
    return counted("chained_graph" + pdl, count) && good;
  }

  // From the call on the host to the host's knowing that an empty kernel is done.
  void round_trip() {
    std::vector<double> us;
    for (int i = 0; i < 200; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      empty_kernel<<<1, 32, 0, stream_>>>();
      PROBE_CHECK(cudaStreamSynchronize(stream_));
      us.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
              .count());
    }
    report("round_trip", 1, 1, median(us));
  }

 private:
  template <class Work>
  double graph_us(Work work) {
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    PROBE_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    work();
    PROBE_CHECK(cudaStreamEndCapture(stream_, &graph));
    PROBE_CHECK(cudaGraphInstantiate(&ready, graph, 0));
    PROBE_CHECK(cudaGraphUpload(ready, stream_));
    const double us = median_us(stream_, 30, [&] { PROBE_CHECK(cudaGraphLaunch(ready, stream_)); });
    PROBE_CHECK(cudaGraphExecDestroy(ready));
    PROBE_CHECK(cudaGraphDestroy(graph));
    return us;
  }
  bool counted(const std::string& kind, int count) {
    PROBE_CHECK(cudaStreamSynchronize(stream_));
    const std::vector<int> c = counter_.read();
    if (c[0] == count && c[1] == 0) return true;
    Result("launch")
        .text("kind", kind)
        .flag("right", false)
        .print(say("%s: WRONG: the counter is %d after %d kernels", kind.c_str(), c[0], count));
    return false;
  }
  void report(const std::string& kind, int count, int blocks, double us) {
    Result("launch")
        .text("kind", kind)
        .number("kernels", count)
        .number("blocks", blocks)
        .number("us", us)
        .number("us_per_kernel", us / count)
        .print(say("%-20s %5d kernels of %4d blocks: %8.2f us, %.3f us each", kind.c_str(), count,
                   blocks, us, us / count));
  }

  cudaDeviceProp device_;
  cudaStream_t stream_ = nullptr;
  DeviceArray<int> counter_;
};

}  // namespace
}  // namespace sluice::probe

int main() {
  using namespace sluice::probe;
  const cudaDeviceProp device = open_device("launch");
  Launches launches(device);
  launches.round_trip();
  bool good = true;
  for (const int count : {1, 10, 100, 1000}) {
    launches.empty(count);
    for (const int blocks : {1, device.multiProcessorCount, 8 * device.multiProcessorCount})
      for (const bool dependent : {false, true}) {
        if (dependent && device.major < 9) continue;
        good = launches.chained(count, blocks, dependent) && good;
      }
  }
  return good ? 0 : 1;
}
