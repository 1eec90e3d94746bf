// What the quantised ops take from NumPy: rows of three dtypes, widening, smoothing and counts.
#pragma once

#include <algorithm>
#include <vector>

#include "arrays.h"
#include "base/fp.h"
#include "ops/quant_matmul/quant_weights.h"

namespace sluice::python {

inline bool is_f16(const py::array& a) {
  return a.itemsize() == 2 && a.dtype().kind() == 'f';
}

// [rows, cols] of f32 or bf16 where they lie; of f16 as a widened copy.
struct Rows {
  Rows(const py::array& a, const char* name) {
    require_rows(a, name, 2);
    rows = a.shape(0), cols = a.shape(1);
    const int64_t stride = row_stride(a, name);
    if (is_bf16(a)) {
      half = {static_cast<const bf16*>(a.data()), rows, cols, stride};
    } else if (is_f16(a)) {
      const auto* from = static_cast<const uint16_t*>(a.data());
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) widened.push_back(f16_to_f32(from[r * stride + c]));
      wide = {widened.data(), rows, cols};
    } else {
      wide = matrix(a, name);
    }
  }
  int64_t rows = 0, cols = 0;
  std::vector<float> widened;
  ConstMatrixF32 wide;
  MatrixView<const bf16> half;
};

// Every element as f32, exactly, in C order.
inline std::vector<float> widened(const py::array& a, const char* name) {
  if ((a.flags() & py::array::c_style) == 0)
    throw py::value_error(fmt::format("{}: expected a C-contiguous array", name));
  std::vector<float> out(static_cast<size_t>(a.size()));
  const auto* narrow = static_cast<const uint16_t*>(a.data());
  if (is_bf16(a))
    std::transform(narrow, narrow + a.size(), out.begin(),
                   [](uint16_t b) { return static_cast<float>(bf16::from_bits(b)); });
  else if (is_f16(a))
    std::transform(narrow, narrow + a.size(), out.begin(), f16_to_f32);
  else
    std::ranges::copy(values<float>(a, name), out.begin());
  return out;
}

inline const float* smoothing(const py::object& o, const char* name, int64_t experts,
                              int64_t cols) {
  if (o.is_none()) return nullptr;
  const auto a = o.cast<py::array>();
  if (a.size() != experts * cols)
    throw py::value_error(fmt::format("{}: expected [E, D] = [{}, {}]", name, experts, cols));
  return contiguous<float>(a, name);
}

inline std::span<const int32_t> counts_of(const py::object& o) {
  if (o.is_none()) return {};
  const auto a = o.cast<py::array>();
  if (a.ndim() != 1) throw py::value_error("tokens_per_expert: expected one dimension");
  return values<int32_t>(a, "tokens_per_expert");
}

inline QuantLayout layout_named(const std::string& name) {
  if (name == "int8") return QuantLayout::kInt8;
  if (name == "int4_rows") return QuantLayout::kInt4RowPairs;
  if (name == "int4_k") return QuantLayout::kInt4KPairs;
  throw py::value_error("layout: expected int8, int4_rows or int4_k, got " + name);
}

inline std::span<const std::byte> bytes_of(const py::array& a, const char* name) {
  if (a.itemsize() != 1 || (a.dtype().kind() != 'i' && a.dtype().kind() != 'u'))
    throw py::type_error(fmt::format("{}: expected int8 or uint8, got {}", name, dtype_of(a)));
  if ((a.flags() & py::array::c_style) == 0)
    throw py::value_error(fmt::format("{}: expected a C-contiguous array", name));
  return {static_cast<const std::byte*>(a.data()), static_cast<size_t>(a.size())};
}

}  // namespace sluice::python
