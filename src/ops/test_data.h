// What the ops' tests share: seeded values, matrices at odd addresses with guarded margins,
// bitwise comparison, and how many random configurations a property test tries.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/fp.h"
#include "device/cuda/cuda.h"
#include "device/device.h"
#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace sluice::test {

// SplitMix64: the same values on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  bool chance(double p) { return uniform() < p; }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // About N(0, 1): the sum of twelve uniforms.
  float normal() {
    double s = -6;
    for (int i = 0; i < 12; ++i) s += uniform();
    return static_cast<float>(s);
  }
  // Mostly N(0, 1); sometimes zeros, subnormals and values of extreme size.
  float rough() {
    if (!chance(0.1)) return normal();
    constexpr float kOdd[] = {0.0f,   -0.0f, 1e-40f, -3e-39f, 1.5e-38f, -2e-20f,
                              1e-30f, 3e18f, -1e12f, 0.5f,    -1.0f,    65504.0f};
    return kOdd[below(12)];
  }

 private:
  uint64_t state_;
};

// rows x cols floats at `offset` floats past an aligned address, with a row stride of cols + pad.
// Everything around the rows holds a guard value that nobody may change.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols, int64_t pad = 0, int64_t offset = 0)
      : rows_(rows), cols_(cols), stride_(cols + pad), offset_(offset + kMargin) {
    storage_.assign(static_cast<size_t>(offset_ + rows * stride_ + kMargin), guard());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) at(r, c) = 0.0f;
  }
  float& at(int64_t r, int64_t c) {
    return storage_[static_cast<size_t>(offset_ + r * stride_ + c)];
  }
  MatrixF32 view() { return {storage_.data() + offset_, rows_, cols_, stride_}; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  Matrix& fill(Random& random, bool rough = false) {
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t c = 0; c < cols_; ++c) at(r, c) = rough ? random.rough() : random.normal();
    return *this;
  }
  bool guards_hold() {
    std::vector<float> copy = storage_;
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t c = 0; c < cols_; ++c)
        copy[static_cast<size_t>(offset_ + r * stride_ + c)] = guard();
    for (const float v : copy)
      if (f32_to_bits(v) != f32_to_bits(guard())) return false;
    return true;
  }

 private:
  static constexpr int64_t kMargin = 32;
  static float guard() { return bits_to_f32(0x7fc0beefu); }  // a NaN: reading it shows, too
  int64_t rows_, cols_, stride_, offset_;
  std::vector<float> storage_;
};

// Equal bits, any NaN being equal to any other: payloads are not part of an arith.
inline bool same_bits(float a, float b) {
  return f32_to_bits(a) == f32_to_bits(b) || (std::isnan(a) && std::isnan(b));
}
inline ::testing::AssertionResult same_bits(ConstMatrixF32 a, ConstMatrixF32 b) {
  if (a.rows != b.rows || a.cols != b.cols)
    return ::testing::AssertionFailure()
           << "shapes " << a.rows << "x" << a.cols << " and " << b.rows << "x" << b.cols;
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t c = 0; c < a.cols; ++c)
      if (!same_bits(a.row(r)[c], b.row(r)[c]))
        return ::testing::AssertionFailure()
               << "row " << r << ", column " << c << ": " << a.row(r)[c] << " and " << b.row(r)[c];
  return ::testing::AssertionSuccess();
}

// The CUDA device that tests of kCuda rows run on, or null. Test programs of a CUDA build take all
// their memory from managed allocations where there is such a device (device/cuda/managed_new.cc),
// so that the arrays of a test are both the host's and the kernel's.
inline Device* cuda_device() {
  static const std::unique_ptr<Device> device = [] {
    Result<std::unique_ptr<Device>> made = make_cuda_device(0);
    return made.ok() ? std::move(made).value() : nullptr;
  }();
  return device.get();
}

// Whether this machine can run a row.
inline bool runnable(Isa isa) {
  if (isa == Isa::kCuda) return cuda_device() != nullptr;
  return is_cuda(isa) || isa_runs(isa);
}

// A context of one ISA, with its own pool (threads == 0: none).
struct Context {
  explicit Context(Isa isa, int threads = 0)
      : device(make_cpu_device()), pool(threads > 0 ? new ThreadPool(threads) : nullptr) {
    exec = {device.get(), nullptr, pool.get(), isa};
    if (isa == Isa::kCuda) {
      exec.device = cuda_device();
      if (Result<std::unique_ptr<Stream>> made = exec.device->make_stream(); made.ok())
        stream = std::move(made).value();
      exec.stream = stream.get();
    }
  }
  // Waits for a device's work; its failures are the op's.
  Status finish(Status status) const {
    if (stream == nullptr || !status.ok()) return status;
    return stream->synchronize();
  }
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<ThreadPool> pool;
  ExecContext exec;
};

// A workspace of exactly so many bytes.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : bytes_(bytes), storage_(bytes + 64) {}
  Workspace workspace() {
    auto at = reinterpret_cast<uintptr_t>(storage_.data());
    return {storage_.data() + (64 - at % 64) % 64, bytes_};
  }

 private:
  size_t bytes_;
  std::vector<std::byte> storage_;
};

// Random configurations per property test: a short slice, or what SLUICE_PROPERTY_RUNS says.
inline int64_t property_runs(int64_t slice) {
  const char* text = std::getenv("SLUICE_PROPERTY_RUNS");
  return text != nullptr && *text != '\0' ? std::strtoll(text, nullptr, 10) : slice;
}

// The rows of a kernel table as test parameters, named as in the table.
template <class Fn>
std::vector<Kernel<Fn>> all_rows(std::span<const Kernel<Fn>> rows) {
  return {rows.begin(), rows.end()};
}
struct RowName {
  template <class Row>
  std::string operator()(const ::testing::TestParamInfo<Row>& info) const {
    return std::string(info.param.name);
  }
};
template <class Fn>
void PrintTo(const Kernel<Fn>& row, std::ostream* out) {
  *out << row.name;
}

}  // namespace sluice::test

#define SLUICE_SKIP_UNLESS_RUNNABLE(row)    \
  if (!::sluice::test::runnable((row).isa)) \
  GTEST_SKIP() << (row).name << ": this machine has no " << ::sluice::isa_name((row).isa)
