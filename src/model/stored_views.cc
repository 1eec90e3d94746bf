#include "model/stored_views.h"

#include <cmath>
#include <cstring>

#include "base/fp.h"

namespace sluice {

namespace {

float read_element(DType dtype, const std::byte* p) {
  if (dtype == DType::kF32) {
    float v = 0;
    std::memcpy(&v, p, 4);
    return v;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  return dtype == DType::kF16 ? f16_to_f32(bits) : static_cast<float>(bf16::from_bits(bits));
}

// One expert of one stored tensor.
struct StoredSlice {
  const StoredTensor* stored = nullptr;
  ResolvedTensor tensor;
  int64_t index = 0;  // along E; 0 unless the experts are packed
};

StoredSlice slice(const ResolvedRule& r, size_t i, int64_t expert) {
  const StoredTensor& stored = (*r.way)[i];
  const bool packed = stored.axes.front() == 'E';
  const size_t at = stored.per_expert() ? static_cast<size_t>(expert) : 0;
  return {&stored, r.tensors[i][at], packed ? expert : 0};
}

// Bytes of one expert of the slice's tensor.
std::pair<const std::byte*, size_t> slice_bytes(const StoredSlice& s, int64_t experts) {
  const TensorView& view = *s.tensor.view;
  if (s.stored->axes.front() != 'E') return {view.data, view.bytes};
  const size_t bytes = view.bytes / static_cast<size_t>(experts);
  return {view.data + static_cast<size_t>(s.index) * bytes, bytes};
}

// A matrix as stored, and the fp8 scales that it points to.
struct ScaledMatrix {
  StoredMatrix matrix;
  std::vector<float> scales;
};

// Rows first, first + step, ... of a slice. fp8 scales are spread to one row of blocks per row, so
// that halves may begin inside a block.
Result<ScaledMatrix> rows_of(const TensorRule& rule, const StoredSlice& s, int64_t first,
                             int64_t step, int64_t count) {
  const std::vector<int64_t> shape = stored_shape(rule, *s.stored);
  const bool transposed = s.stored->axes.ends_with("KN");
  const int64_t n = shape[shape.size() - (transposed ? 1 : 2)];
  const int64_t stride_n = transposed ? 1 : rule.k, stride_k = transposed ? n : 1;
  const TensorView& view = *s.tensor.view;
  const int64_t element = dtype_bits(view.dtype) / 8;
  ScaledMatrix out;
  out.matrix.dtype = view.dtype;
  out.matrix.data = slice_bytes(s, rule.experts).first + first * stride_n * element;
  out.matrix.n = count;
  out.matrix.k = rule.k;
  out.matrix.stride_n = stride_n * step;
  out.matrix.stride_k = stride_k;
  if (s.tensor.scale == nullptr) return out;
  const std::optional<ScaleLayout> layout =
      fp8_scale_layout(rule, *s.stored, s.tensor.scale->shape, s.tensor.block_n, s.tensor.block_k);
  if (!layout) return internal_error("scale {} was not resolved", s.tensor.scale->name);
  const std::vector<float> all =
      read_vector(*s.tensor.scale, layout->per_expert ? s.index * layout->rows * layout->cols : 0,
                  layout->rows * layout->cols);
  out.scales.resize(static_cast<size_t>(count * layout->cols));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = (first + i * step) / layout->block_n;
    for (int64_t c = 0; c < layout->cols; ++c)
      out.scales[static_cast<size_t>(i * layout->cols + c)] = all[static_cast<size_t>(
          layout->transposed ? c * layout->rows + row : row * layout->cols + c)];
  }
  out.matrix.scale = out.scales.data();
  out.matrix.scale_block_n = 1;
  out.matrix.scale_block_k = layout->block_k;
  out.matrix.scale_cols = layout->cols;
  return out;
}

Result<PackedMatrix> pack_blocks(Device& device, const ResolvedRule& r, int64_t expert) {
  const StoredSlice blocks = slice(r, 0, expert), scales = slice(r, 1, expert);
  const StoredMxfp4 stored = {slice_bytes(blocks, r.rule->experts).first,
                              slice_bytes(scales, r.rule->experts).first, r.rule->n, r.rule->k};
  return r.rule->glu ? pack_mxfp4_glu_interleaved(device, stored) : pack_mxfp4(device, stored);
}

bool stored_as_blocks(const ResolvedRule& r) {
  return r.way->front().dtypes == DtypePolicy::kBytes;
}

// Stored MXFP4 in another format: by way of its exact values.
Result<PackedMatrix> repack_blocks(Device& device, const ResolvedRule& r, int64_t expert,
                                   WeightFormat format, const IntPacking& how) {
  SLUICE_ASSIGN_OR_RETURN(const PackedMatrix stored, pack_blocks(device, r, expert));
  const int64_t n = stored.n, k = stored.k;
  std::vector<float> values(static_cast<size_t>(n * k));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j)
      values[static_cast<size_t>(i * k + j)] = packed_element(stored, i, j);
  const StoredMatrix all = stored_rows(values.data(), n, k);
  if (!r.rule->glu) return pack_matrix(device, all, format, how);
  StoredMatrix gate = all, up = all;
  gate.n = up.n = n / 2;
  up.data += static_cast<size_t>(n / 2 * k) * sizeof(float);
  return pack_glu(device, gate, up, format, how);
}

Result<PackedMatrix> pack_halves(Device& device, const ResolvedRule& r, int64_t expert,
                                 WeightFormat format, const IntPacking& how) {
  const int64_t half = r.rule->n / 2;
  const StoredSlice gate = slice(r, 0, expert), up = slice(r, r.way->size() - 1, expert);
  int64_t up_first = 0, step = 1;
  if (gate.stored->part == TensorPart::kGateThenUp) up_first = half;
  if (gate.stored->part == TensorPart::kInterleaved) {
    up_first = 1;
    step = 2;
  }
  SLUICE_ASSIGN_OR_RETURN(const ScaledMatrix g, rows_of(*r.rule, gate, 0, step, half));
  SLUICE_ASSIGN_OR_RETURN(const ScaledMatrix u, rows_of(*r.rule, up, up_first, step, half));
  return pack_glu(device, g.matrix, u.matrix, format, how);
}

}  // namespace

std::vector<float> read_vector(const TensorView& view, int64_t first, int64_t count) {
  const size_t size = static_cast<size_t>(dtype_bits(view.dtype)) / 8;
  const std::byte* p = view.data + static_cast<size_t>(first) * size;
  std::vector<float> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = read_element(view.dtype, p + i * size);
  return out;
}

float round_to_stored(float scale, DType dtype) {
  if (dtype == DType::kBF16) return round_to_bf16(scale);
  if (dtype != DType::kF16) return scale;
  int exponent = 0;
  const float mantissa = std::frexp(scale, &exponent);
  return std::ldexp(std::nearbyint(mantissa * 2048.0f), exponent - 11);
}

std::vector<float> read_expert_row(const ResolvedRule& r, int64_t expert) {
  const int64_t n = r.rule->n;
  std::vector<float> row = read_vector(*r.tensors[0][0].view, expert * n, n);
  if ((*r.way)[0].part != TensorPart::kInterleaved) return row;
  std::vector<float> out(row.size());
  const size_t half = row.size() / 2;
  for (size_t i = 0; i < row.size(); ++i) out[(i % 2) * half + i / 2] = row[i];
  return out;
}

Result<PackedMatrix> pack_resolved(Device& device, const ResolvedRule& r, int64_t expert,
                                   WeightFormat format, const IntPacking& how) {
  if (stored_as_blocks(r))
    return format == WeightFormat::kMXFP4 ? pack_blocks(device, r, expert)
                                          : repack_blocks(device, r, expert, format, how);
  if (r.rule->glu) return pack_halves(device, r, expert, format, how);
  SLUICE_ASSIGN_OR_RETURN(const ScaledMatrix m,
                          rows_of(*r.rule, slice(r, 0, expert), 0, 1, r.rule->n));
  return pack_matrix(device, m.matrix, format, how);
}

Status pack_rows(const ResolvedRule& r, const RowSlice& rows, WeightFormat format, std::byte* out,
                 const IntPacking& how) {
  SLUICE_ASSIGN_OR_RETURN(const ScaledMatrix m,
                          rows_of(*r.rule, slice(r, 0, 0), rows.first, 1, rows.count));
  return pack_matrix_into(m.matrix, format, out, how);
}

std::pair<const std::byte*, size_t> stored_range(const ResolvedRule& r, const RowSlice& rows) {
  const TensorView& view = *r.tensors[0][0].view;
  const size_t row = view.bytes / static_cast<size_t>(r.rule->n);
  return {view.data + static_cast<size_t>(rows.first) * row, static_cast<size_t>(rows.count) * row};
}

std::vector<std::pair<const std::byte*, size_t>> stored_ranges(const ResolvedRule& r,
                                                               int64_t expert) {
  std::vector<std::pair<const std::byte*, size_t>> ranges;
  for (size_t i = 0; i < r.way->size(); ++i)
    ranges.push_back(slice_bytes(slice(r, i, expert), r.rule->experts));
  return ranges;
}

}  // namespace sluice
