#include "ops/matmul/pack.h"

#include <cstring>

#include "base/fp.h"

namespace sluice {
namespace {

constexpr int64_t kColumns = kPanelColumns;
constexpr int64_t kBlock = 32;                       // k per MXFP4 block and bf16 padding step
constexpr int64_t kMxfp4BlockBytes = kColumns * 17;  // 16 scales, 16 x 16 bytes of nibbles
constexpr int64_t kTileK = 256;                      // k converted at a time
constexpr int64_t kMaxElements = int64_t{1} << 48;   // bounds every product of sizes below

// Up to 16 consecutive rows of a stored matrix, which become one panel.
struct PanelRows {
  const StoredMatrix* matrix = nullptr;
  int64_t first = 0;
  int64_t count = 0;
};

int64_t element_bytes(DType dtype) {
  return dtype_bits(dtype) / 8;
}

bool is_packable(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 ||
         dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2;
}

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}

float widen(DType dtype, const std::byte* p) {
  switch (dtype) {
    case DType::kF32:
      return load<float>(p);
    case DType::kF16:
      return f16_to_f32(load<uint16_t>(p));
    case DType::kBF16:
      return static_cast<float>(bf16::from_bits(load<uint16_t>(p)));
    case DType::kF8E4M3:
      return e4m3_to_f32(load<uint8_t>(p));
    default:
      return e5m2_to_f32(load<uint8_t>(p));
  }
}

// k in [k0, k0 + count) of row n, widened and scaled.
void read_row(const StoredMatrix& m, int64_t n, int64_t k0, int64_t count, float* out) {
  const int64_t size = element_bytes(m.dtype);
  const std::byte* p = m.data + (n * m.stride_n + k0 * m.stride_k) * size;
  const int64_t step = m.stride_k * size;
  for (int64_t i = 0; i < count; ++i) out[i] = widen(m.dtype, p + i * step);
  if (m.scale == nullptr) return;
  const float* scales = m.scale + (n / m.scale_block_n) * m.scale_cols;
  for (int64_t i = 0; i < count; ++i) out[i] *= scales[(k0 + i) / m.scale_block_k];
}

void write_f32(const float (*tile)[kTileK], int64_t count, float* out) {
  for (int64_t k = 0; k < count; ++k)
    for (int64_t c = 0; c < kColumns; ++c) out[k * kColumns + c] = tile[c][k];
}

void write_bf16(const float (*tile)[kTileK], int64_t count, uint16_t* out) {
  for (int64_t k = 0; k < count; ++k)
    for (int64_t c = 0; c < kColumns; ++c)
      out[(k / 2 * kColumns + c) * 2 + (k & 1)] = bf16(tile[c][k]).bits;
}

// Stored bf16 with adjacent k: pairs move as they are.
void pack_panel_bf16_pairs(const PanelRows& rows, std::byte* out) {
  const StoredMatrix& m = *rows.matrix;
  const std::byte* base = m.data + rows.first * m.stride_n * 2;
  for (int64_t k = 0; k < m.k; k += 2) {
    const size_t bytes = k + 1 < m.k ? 4 : 2;
    for (int64_t c = 0; c < rows.count; ++c)
      std::memcpy(out + (k / 2 * kColumns + c) * 4, base + (c * m.stride_n + k) * 2, bytes);
  }
}

void pack_panel(const PanelRows& rows, WeightFormat format, std::byte* out) {
  const StoredMatrix& m = *rows.matrix;
  if (format == WeightFormat::kBF16 && m.dtype == DType::kBF16 && m.stride_k == 1 &&
      m.scale == nullptr)
    return pack_panel_bf16_pairs(rows, out);
  float tile[kColumns][kTileK] = {};
  for (int64_t k0 = 0; k0 < m.k; k0 += kTileK) {
    const int64_t count = m.k - k0 < kTileK ? m.k - k0 : kTileK;
    for (int64_t c = 0; c < rows.count; ++c) read_row(m, rows.first + c, k0, count, tile[c]);
    if (format == WeightFormat::kF32)
      write_f32(tile, count, reinterpret_cast<float*>(out) + k0 * kColumns);
    else
      write_bf16(tile, count, reinterpret_cast<uint16_t*>(out) + k0 * kColumns);
  }
}

Status check_stored(const StoredMatrix& m, WeightFormat format, std::string_view what) {
  if (format != WeightFormat::kF32 && format != WeightFormat::kBF16)
    return invalid_argument("pack: {}: format: expected f32 or bf16, got {}", what,
                            weight_format_name(format));
  if (!is_packable(m.dtype))
    return invalid_argument("pack: {}: dtype: expected F32, F16, BF16, F8_E4M3 or F8_E5M2, got {}",
                            what, dtype_name(m.dtype));
  if (m.data == nullptr || m.n < 1 || m.k < 1 || m.n > kMaxElements / m.k)
    return invalid_argument("pack: {}: expected [N, K] with N, K >= 1, got [{}, {}]", what, m.n,
                            m.k);
  if (m.scale != nullptr &&
      (m.scale_block_n < 1 || m.scale_block_k < 1 || m.scale_cols < ceil_div(m.k, m.scale_block_k)))
    return invalid_argument("pack: {}: scale: {} columns of blocks {} x {} do not cover K = {}",
                            what, m.scale_cols, m.scale_block_n, m.scale_block_k, m.k);
  return ok_status();
}

// A zero-filled matrix of the wanted shape that owns its memory, and where to write it.
struct Target {
  PackedMatrix matrix;
  std::byte* data = nullptr;
};
Result<Target> allocate(Device& device, WeightFormat format, WeightLayout layout, int64_t n,
                        int64_t k) {
  Target t;
  t.matrix.format = format;
  t.matrix.layout = layout;
  t.matrix.n = n;
  t.matrix.k = k;
  t.matrix.bytes = packed_bytes(format, layout, n, k);
  SLUICE_ASSIGN_OR_RETURN(Buffer buffer, device.allocate(t.matrix.bytes, "packed weights"));
  t.data = buffer.data();
  t.matrix.data = t.data;
  t.matrix.owner = std::make_shared<const Buffer>(std::move(buffer));
  return t;
}

int64_t panel_rows(int64_t n, int64_t panel) {
  const int64_t left = n - panel * kColumns;
  return left < kColumns ? left : kColumns;
}

// Panels hold no -0: the kernels need not keep its sign apart from +0's (weights/packed.h).
std::byte without_negative_zero(std::byte pair) {
  auto b = static_cast<unsigned>(pair);
  if ((b & 0x0f) == 0x08) b &= 0xf0;
  if ((b & 0xf0) == 0x80) b &= 0x0f;
  return static_cast<std::byte>(b);
}

// One block column of a panel: `row(c)` is the stored row of column c.
template <class Row>
Status pack_mxfp4_panel(const StoredMxfp4& w, int64_t columns, Row row, std::byte* out) {
  const int64_t blocks = w.k / kBlock;
  for (int64_t b = 0; b < blocks; ++b) {
    std::byte* block = out + b * kMxfp4BlockBytes;
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t at = row(c) * blocks + b;
      if (w.scales[at] == std::byte{255})
        return data_loss("pack: mxfp4: the scale of row N = {}, block {} is NaN (255)", row(c), b);
      block[c] = w.scales[at];
      for (int64_t j = 0; j < 16; ++j)
        block[kColumns + j * kColumns + c] = without_negative_zero(w.blocks[at * 16 + j]);
    }
  }
  return ok_status();
}

Status check_mxfp4(const StoredMxfp4& w) {
  if (w.blocks == nullptr || w.scales == nullptr || w.n < 1 || w.k < 1 || w.n > kMaxElements / w.k)
    return invalid_argument("pack: mxfp4: expected [N, K] with N, K >= 1, got [{}, {}]", w.n, w.k);
  if (w.k % kBlock != 0)
    return invalid_argument("pack: mxfp4: K: expected a multiple of 32, got {}", w.k);
  return ok_status();
}

float mxfp4_element(const std::byte* panel, int64_t c, int64_t k) {
  const std::byte* block = panel + k / kBlock * kMxfp4BlockBytes;
  const auto scale = static_cast<uint8_t>(block[c]);
  const auto pair = static_cast<uint8_t>(block[kColumns + k % kBlock / 2 * kColumns + c]);
  return e2m1_to_f32((k & 1) != 0 ? pair >> 4 : pair & 15) * e8m0_to_f32(scale);
}

}  // namespace

Status pack_matrix_into(const StoredMatrix& w, WeightFormat format, std::byte* out) {
  SLUICE_RETURN_IF_ERROR(check_stored(w, format, "w"));
  const size_t bytes = panel_bytes(format, w.k);
  for (int64_t p = 0; p < ceil_div(w.n, kColumns); ++p)
    pack_panel({&w, p * kColumns, panel_rows(w.n, p)}, format,
               out + static_cast<size_t>(p) * bytes);
  return ok_status();
}

Result<PackedMatrix> pack_matrix(Device& device, const StoredMatrix& w, WeightFormat format) {
  SLUICE_RETURN_IF_ERROR(check_stored(w, format, "w"));
  SLUICE_ASSIGN_OR_RETURN(Target t, allocate(device, format, WeightLayout::kPanel16, w.n, w.k));
  SLUICE_RETURN_IF_ERROR(pack_matrix_into(w, format, t.data));
  return std::move(t.matrix);
}

Result<PackedMatrix> pack_glu(Device& device, const StoredMatrix& gate, const StoredMatrix& up,
                              WeightFormat format) {
  SLUICE_RETURN_IF_ERROR(check_stored(gate, format, "gate"));
  SLUICE_RETURN_IF_ERROR(check_stored(up, format, "up"));
  if (gate.n != up.n || gate.k != up.k)
    return invalid_argument("pack: up: expected [I, D] = [{}, {}] as gate, got [{}, {}]", gate.n,
                            gate.k, up.n, up.k);
  SLUICE_ASSIGN_OR_RETURN(Target t,
                          allocate(device, format, WeightLayout::kGluPanel16, 2 * gate.n, gate.k));
  const size_t bytes = panel_bytes(format, gate.k);
  for (int64_t p = 0; p < t.matrix.panels(); ++p)
    pack_panel({p % 2 == 0 ? &gate : &up, p / 2 * kColumns, panel_rows(gate.n, p / 2)}, format,
               t.data + static_cast<size_t>(p) * bytes);
  return std::move(t.matrix);
}

Result<PackedMatrix> pack_mxfp4(Device& device, const StoredMxfp4& w) {
  SLUICE_RETURN_IF_ERROR(check_mxfp4(w));
  SLUICE_ASSIGN_OR_RETURN(Target t,
                          allocate(device, WeightFormat::kMXFP4, WeightLayout::kPanel16, w.n, w.k));
  const size_t bytes = panel_bytes(WeightFormat::kMXFP4, w.k);
  for (int64_t p = 0; p < t.matrix.panels(); ++p) {
    const auto row = [p](int64_t c) { return p * kColumns + c; };
    SLUICE_RETURN_IF_ERROR(
        pack_mxfp4_panel(w, panel_rows(w.n, p), row, t.data + static_cast<size_t>(p) * bytes));
  }
  return std::move(t.matrix);
}

Result<PackedMatrix> pack_mxfp4_glu_interleaved(Device& device, const StoredMxfp4& gate_up) {
  SLUICE_RETURN_IF_ERROR(check_mxfp4(gate_up));
  if (gate_up.n % 2 != 0)
    return invalid_argument("pack: gate_up: N: expected 2 I, even, got {}", gate_up.n);
  SLUICE_ASSIGN_OR_RETURN(Target t, allocate(device, WeightFormat::kMXFP4,
                                             WeightLayout::kGluPanel16, gate_up.n, gate_up.k));
  const size_t bytes = panel_bytes(WeightFormat::kMXFP4, gate_up.k);
  for (int64_t p = 0; p < t.matrix.panels(); ++p) {
    const auto row = [p](int64_t c) { return 2 * (p / 2 * kColumns + c) + p % 2; };
    SLUICE_RETURN_IF_ERROR(pack_mxfp4_panel(gate_up, panel_rows(gate_up.n / 2, p / 2), row,
                                            t.data + static_cast<size_t>(p) * bytes));
  }
  return std::move(t.matrix);
}

float packed_element(const PackedMatrix& w, int64_t n, int64_t k) {
  const int64_t half = w.n / 2;
  const bool glu = w.layout == WeightLayout::kGluPanel16;
  const int64_t unit = glu && n >= half ? n - half : n;
  const int64_t group = unit / kColumns;
  const int64_t panel = glu ? 2 * group + (n >= half ? 1 : 0) : group;
  const int64_t c = unit % kColumns;
  if (w.layout == WeightLayout::kRowMajor) {
    const auto at = static_cast<size_t>(n * w.k + k);
    if (w.format == WeightFormat::kF32) return load<float>(w.data + at * 4);
    const auto bits = load<uint16_t>(w.data + at * 2);
    return w.format == WeightFormat::kF16 ? f16_to_f32(bits)
                                          : static_cast<float>(bf16::from_bits(bits));
  }
  const std::byte* p = w.data + static_cast<size_t>(panel) * panel_bytes(w.format, w.k);
  if (w.format == WeightFormat::kF32) return load<float>(p + (k * kColumns + c) * 4);
  if (w.format == WeightFormat::kBF16)
    return static_cast<float>(
        bf16::from_bits(load<uint16_t>(p + ((k / 2 * kColumns + c) * 2 + (k & 1)) * 2)));
  return mxfp4_element(p, c, k);
}

}  // namespace sluice
