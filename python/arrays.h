// NumPy arrays as the ops' views: checked for dtype and shape, never copied.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "base/status.h"
#include "ops/moe_route/moe_route.h"
#include "tensor/view.h"

namespace sluice::python {

namespace py = pybind11;

// A failed Status as the Python exception of its kind.
[[noreturn]] inline void raise(const Status& status) {
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kDataLoss:  // values that contradict each other, or no numbers
      throw py::value_error(status.message());
    case StatusCode::kUnimplemented:
      PyErr_SetString(PyExc_NotImplementedError, status.message().c_str());
      throw py::error_already_set();
    case StatusCode::kResourceExhausted:
      PyErr_SetString(PyExc_MemoryError, status.message().c_str());
      throw py::error_already_set();
    default:
      throw std::runtime_error(status.message());
  }
}
inline void require(const Status& status) {
  if (!status.ok()) raise(status);
}
template <class T>
T require(Result<T> result) {
  if (!result.ok()) raise(result.status());
  return std::move(result).value();
}

inline std::string dtype_of(const py::array& a) {
  return py::str(a.dtype()).cast<std::string>();
}
// bfloat16 is no NumPy type: ml_dtypes' bfloat16, or uint16 with the same bits.
inline bool is_bf16(const py::array& a) {
  return a.itemsize() == 2 && (a.dtype().kind() == 'u' || dtype_of(a) == "bfloat16");
}

inline void require_rows(const py::array& a, const char* name, int dims) {
  if (a.ndim() != dims)
    throw py::value_error(fmt::format("{}: expected {} dimensions, got {}", name, dims, a.ndim()));
  const auto last = a.ndim() - 1;
  if (a.size() > 0 && a.shape(last) > 1 && a.strides(last) != a.itemsize())
    throw py::value_error(fmt::format("{}: the last dimension must be contiguous", name));
}

template <class T>
const T* contiguous(const py::array& a, const char* name) {
  if (!py::isinstance<py::array_t<T>>(a))
    throw py::type_error(fmt::format("{}: expected dtype {}, got {}", name,
                                     py::str(py::dtype::of<T>()).template cast<std::string>(),
                                     dtype_of(a)));
  if ((a.flags() & py::array::c_style) == 0)
    throw py::value_error(fmt::format("{}: expected a C-contiguous array", name));
  return static_cast<const T*>(a.data());
}
template <class T>
std::span<const T> values(const py::array& a, const char* name) {
  return {contiguous<T>(a, name), static_cast<size_t>(a.size())};
}
template <class T>
std::span<T> writable(py::array_t<T>& a) {
  return {a.mutable_data(), static_cast<size_t>(a.size())};
}

// Elements from row to row: not less than a row, which reversed and broadcast views have.
inline int64_t row_stride(const py::array& a, const char* name) {
  const int64_t stride = a.shape(0) > 1 ? a.strides(0) / a.itemsize() : a.shape(1);
  if (a.size() > 0 && stride < a.shape(1))
    throw py::value_error(fmt::format(
        "{}: row stride: expected at least the {} columns, got {}; pass a copy (ascontiguousarray)",
        name, a.shape(1), stride));
  return stride;
}
// The shape [T, K] of ids and weights that belong together.
inline void require_same_shape(const py::array& weights, const char* name, const py::array& ids,
                               const char* beside) {
  if (weights.ndim() != 2 || weights.shape(0) != ids.shape(0) || weights.shape(1) != ids.shape(1))
    throw py::value_error(fmt::format("{}: expected [T, K] = [{}, {}] as {}, got {}", name,
                                      ids.shape(0), ids.shape(1), beside,
                                      py::str(weights.attr("shape")).cast<std::string>()));
}

// [rows, cols] f32 with a row stride.
inline ConstMatrixF32 matrix(const py::array& a, const char* name) {
  require_rows(a, name, 2);
  if (!py::isinstance<py::array_t<float>>(a))
    throw py::type_error(fmt::format("{}: expected float32, got {}", name, dtype_of(a)));
  return {static_cast<const float*>(a.data()), a.shape(0), a.shape(1), row_stride(a, name)};
}

// Router logits of any dtype that moe_route reads.
inline LogitsView logits(const py::array& a) {
  require_rows(a, "gating_output", 2);
  const DType dtype = py::isinstance<py::array_t<float>>(a)          ? DType::kF32
                      : is_bf16(a)                                   ? DType::kBF16
                      : a.itemsize() == 2 && a.dtype().kind() == 'f' ? DType::kF16
                                                                     : DType::kBool;
  if (dtype == DType::kBool)
    throw py::type_error(
        "gating_output: expected float32, float16, bfloat16 or its bits as uint16, got " +
        dtype_of(a));
  return {a.data(), dtype, a.shape(0), a.shape(1), row_stride(a, "gating_output")};
}

}  // namespace sluice::python
