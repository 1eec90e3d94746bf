// Non-owning views of row-major matrices on one device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace sluice {

// rows x cols elements of T; row r starts at data + r * stride (stride in elements, >= cols).
template <class T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  MatrixView() = default;
  MatrixView(T* d, int64_t r, int64_t c) : data(d), rows(r), cols(c), stride(c) {}
  MatrixView(T* d, int64_t r, int64_t c, int64_t s) : data(d), rows(r), cols(c), stride(s) {}
  // A view of T converts to a view of const T.
  template <class U>
  requires std::is_same_v<const U, T> MatrixView(
      const MatrixView<U>& o)  // NOLINT: implicit by design
      : data(o.data), rows(o.rows), cols(o.cols), stride(o.stride) {}

  T* row(int64_t r) const { return data + r * stride; }
};

// Whether two views share an element. Columns of one wide buffer (equal strides) are told apart;
// views of unequal strides count as sharing when their extents meet.
template <class T>
bool views_overlap(MatrixView<T> a, MatrixView<T> b) {
  if (a.rows == 0 || b.rows == 0 || a.cols == 0 || b.cols == 0) return false;
  const auto begin = [](const MatrixView<T>& v) { return reinterpret_cast<uintptr_t>(v.data); };
  const auto end = [](const MatrixView<T>& v) {
    return reinterpret_cast<uintptr_t>(v.row(v.rows - 1) + v.cols);
  };
  if (end(a) <= begin(b) || end(b) <= begin(a)) return false;
  const uintptr_t stride = static_cast<uintptr_t>(a.stride) * sizeof(T);
  if (a.stride != b.stride || stride == 0) return true;
  // Where b's columns begin within a's rows, going round: free when they end before a's begin
  // again.
  const uintptr_t shift = begin(b) >= begin(a) ? (begin(b) - begin(a)) % stride
                                               : (stride - (begin(a) - begin(b)) % stride) % stride;
  return shift < static_cast<uintptr_t>(a.cols) * sizeof(T) ||
         shift + static_cast<uintptr_t>(b.cols) * sizeof(T) > stride;
}

using MatrixF32 = MatrixView<float>;
using ConstMatrixF32 = MatrixView<const float>;

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
constexpr int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

}  // namespace sluice
