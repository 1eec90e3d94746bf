// What the GPU probes share: finding the device, failing with a sentence, timing, results.
//
// A probe prints one JSON object per result on a line of its own, and a line for people under it.
// Exit code 0: every self-check held. 1: a wrong result or a CUDA error. 77: skipped, and the line
// says why (no device, or one that lacks what the probe needs).
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace sluice::probe {

constexpr int kSkipped = 77;

inline void check(cudaError_t error, const char* what, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s:%d: %s: %s (%s)\n", file, line, what, cudaGetErrorString(error),
               cudaGetErrorName(error));
  std::exit(1);
}
#define PROBE_CHECK(call) ::sluice::probe::check((call), #call, __FILE__, __LINE__)

// One result: `Result("launch").text("kind", "graph").number("us", 1.3).print("graph: 1.3 us")`.
class Result {
 public:
  explicit Result(const std::string& probe) { text("probe", probe); }
  Result& text(const std::string& key, const std::string& value) {
    return raw(key, "\"" + value + "\"");
  }
  Result& number(const std::string& key, double value) {
    char digits[40];
    std::snprintf(digits, sizeof digits, "%.9g", value);
    return raw(key, digits);
  }
  Result& flag(const std::string& key, bool value) { return raw(key, value ? "true" : "false"); }
  void print(const std::string& sentence) const {
    std::printf("{%s}\n  %s\n", fields_.c_str(), sentence.c_str());
    std::fflush(stdout);
  }

 private:
  Result& raw(const std::string& key, const std::string& value) {
    fields_ += (fields_.empty() ? "\"" : ", \"") + key + "\": " + value;
    return *this;
  }
  std::string fields_;
};

// Formats like printf.
template <class... Args>
std::string say(const char* format, Args... args) {
  char text[512];
  std::snprintf(text, sizeof text, format, args...);
  return text;
}

[[noreturn]] inline void skip(const char* probe, const std::string& why) {
  Result(probe).text("skipped", why).print(std::string(probe) + ": skipped: " + why);
  std::exit(kSkipped);
}

// Properties of device 0, or the end of the program with code 77: without a device, or below
// `least` (10 * major + minor). exactly_major > 0 asks for one major version: the "a" features of
// an architecture exist on that architecture alone.
inline cudaDeviceProp open_device(const char* probe, int least = 80, int exactly_major = 0) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ||
      (error == cudaSuccess && count == 0))
    skip(probe, error == cudaErrorInsufficientDriver ? "no CUDA device: no driver, or one too old"
                                                     : "no CUDA device");
  PROBE_CHECK(error);
  PROBE_CHECK(cudaSetDevice(0));
  cudaDeviceProp properties{};
  PROBE_CHECK(cudaGetDeviceProperties(&properties, 0));
  const int have = 10 * properties.major + properties.minor;
  if (have < least || (exactly_major > 0 && properties.major != exactly_major))
    skip(probe, say("needs compute capability %d.%d, %s has %d.%d", least / 10, least % 10,
                    properties.name, properties.major, properties.minor));
  return properties;
}

// Device memory, freed at the end of the scope.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    PROBE_CHECK(cudaMalloc(&data_, count * sizeof(T)));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    PROBE_CHECK(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return static_cast<T*>(data_); }
  size_t count() const { return count_; }
  // Every byte set, so that a value which no kernel wrote cannot pass for a result.
  void poison() { PROBE_CHECK(cudaMemset(data_, 0xff, count_ * sizeof(T))); }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    PROBE_CHECK(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t count_ = 0;
};

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Median microseconds of `work` on `stream` over `repeats` runs after two that warm up.
template <class Work>
double median_us(cudaStream_t stream, int repeats, Work work) {
  cudaEvent_t begin, end;
  PROBE_CHECK(cudaEventCreate(&begin));
  PROBE_CHECK(cudaEventCreate(&end));
  std::vector<double> us;
  for (int i = -2; i < repeats; ++i) {
    PROBE_CHECK(cudaEventRecord(begin, stream));
    work();
    PROBE_CHECK(cudaEventRecord(end, stream));
    PROBE_CHECK(cudaEventSynchronize(end));
    float ms = 0;
    PROBE_CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 0) us.push_back(1e3 * ms);
  }
  PROBE_CHECK(cudaEventDestroy(begin));
  PROBE_CHECK(cudaEventDestroy(end));
  return median(us);
}

}  // namespace sluice::probe
