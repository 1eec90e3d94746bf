#include "ops/matmul/pack.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "base/float_env.h"
#include "base/fp.h"
#include "device/block.h"
#include "ops/matmul/block_values.h"
#include "ops/matmul/pack_fp8.h"
#include "ops/matmul/pack_target.h"
#include "ops/matmul/quantize_gguf.h"
#include "ops/matmul/quantize_mxfp4.h"
#include "ops/matmul/stored_blocks.h"
#include "weights/block_panels.h"
#include "weights/int_panels.h"

namespace sluice {
namespace {

constexpr int64_t kColumns = kPanelColumns;
constexpr int64_t kTileK = 256;  // k converted at a time

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

float widen(DType dtype, const std::byte* p) {
  switch (dtype) {
    case DType::kF32:
      return load_as<float>(p);
    case DType::kF16:
      return f16_to_f32(load_as<uint16_t>(p));
    case DType::kBF16:
      return static_cast<float>(bf16::from_bits(load_as<uint16_t>(p)));
    case DType::kF8E4M3:
      return e4m3_to_f32(load_as<uint8_t>(p));
    default:
      return e5m2_to_f32(load_as<uint8_t>(p));
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

// One column of a block: `groups` groups of the column's multipliers, zero points and codes.
void write_int4(const Int4Column& column, int64_t c, int64_t groups, std::byte* block) {
  const uint16_t scale = bf16(column.scale).bits;
  std::memcpy(block + c * 2, &scale, 2);
  std::byte* multipliers = block + kInt4MultiplierAt;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t word = kInt4ZeroAt + g * 2 + c / 8;
    if (column.zero[g] == 7) block[word] |= std::byte{1} << (c % 8);
    multipliers[g / 8 * 64 + c * 4 + g % 8 / 2] |= std::byte{column.multiplier[g]} << (g % 2 * 4);
  }
  std::byte* codes = block + int4_codes_at(groups);
  for (int64_t k = 0; k < groups * kIntGroup; ++k)
    codes[k / 8 * 64 + c * 4 + k % 4] |= std::byte{column.code[k]} << (k % 8 / 4 * 4);
}

void write_int8(const Int8Column& column, int64_t c, int64_t groups, std::byte* block) {
  std::memcpy(block + c * 4, &column.scale, 4);
  std::byte* codes = block + kInt8CodesAt;
  for (int64_t k = 0; k < groups * kIntGroup; ++k)
    codes[k / 4 * 64 + c * 4 + k % 4] = static_cast<std::byte>(column.code[k] + 128);
}

Status check_finite(WeightFormat format, int64_t n, int64_t k0, int64_t count, const float* w) {
  for (int64_t k = 0; k < count; ++k)
    if (!std::isfinite(w[k]))
      return data_loss("pack: {}: element (N, K) = ({}, {}) is {}", weight_format_name(format), n,
                       k0 + k, w[k]);
  return ok_status();
}

// Columns past N are quantised, too: as zeros they get scale 0 and codes that mean 0.
Status pack_int_panel(const PanelRows& rows, WeightFormat format, const IntPacking& how,
                      std::byte* out) {
  const StoredMatrix& m = *rows.matrix;
  const ScopedFloatEnv env;  // the same codes whether a pool's worker calls or not
  for (int64_t k0 = 0; k0 < m.k; k0 += how.block) {
    const int64_t count = m.k - k0 < how.block ? m.k - k0 : how.block;
    const int64_t groups = int_groups(count);
    for (int64_t c = 0; c < kColumns; ++c) {
      float w[kMostIntBlock] = {};
      if (c < rows.count) read_row(m, rows.first + c, k0, count, w);
      SLUICE_RETURN_IF_ERROR(check_finite(format, rows.first + c, k0, count, w));
      if (format == WeightFormat::kInt4) {
        Int4Column column;
        quantize_int4(w, groups, how.rounding, &column);
        write_int4(column, c, groups, out);
      } else {
        Int8Column column;
        quantize_int8(w, groups, &column);
        write_int8(column, c, groups, out);
      }
    }
    out += format == WeightFormat::kInt4 ? int4_block_bytes(groups) : int8_block_bytes(groups);
  }
  return ok_status();
}

// The same for a block format; columns past N stay zeros.
Status pack_block_panel(const PanelRows& rows, WeightFormat format, IntRounding rounding,
                        std::byte* out) {
  const StoredMatrix& m = *rows.matrix;
  const ScopedFloatEnv env;
  const BlockTraits traits = block_traits(format);
  constexpr int64_t kBlockK = kBlockGroups * kGroupK;
  for (int64_t k0 = 0; k0 < m.k; k0 += kBlockK) {
    const int64_t count = m.k - k0 < kBlockK ? m.k - k0 : kBlockK;
    const int64_t groups = block_groups(count);
    for (int64_t c = 0; c < rows.count; ++c) {
      float w[kBlockK] = {};
      read_row(m, rows.first + c, k0, count, w);
      SLUICE_RETURN_IF_ERROR(check_finite(format, rows.first + c, k0, count, w));
      BlockColumn column;
      SLUICE_RETURN_IF_ERROR(quantize_block_column(format, w, groups, rounding, &column));
      write_block_column(format, column, c, groups, out);
    }
    out += block_bytes(traits, groups);
  }
  return ok_status();
}

// The same for MXFP4; columns past N are blocks of zeros.
Status pack_chosen_mxfp4_panel(const PanelRows& rows, IntRounding rounding, std::byte* out) {
  const StoredMatrix& m = *rows.matrix;
  const ScopedFloatEnv env;
  for (int64_t k0 = 0; k0 < m.k; k0 += kMxfp4K, out += kMxfp4BlockBytes) {
    for (int64_t c = 0; c < kColumns; ++c) {
      float w[kMxfp4K] = {};
      if (c < rows.count) read_row(m, rows.first + c, k0, kMxfp4K, w);
      SLUICE_RETURN_IF_ERROR(check_finite(WeightFormat::kMXFP4, rows.first + c, k0, kMxfp4K, w));
      write_mxfp4(quantize_mxfp4(w, rounding == IntRounding::kSearch), c, out);
    }
  }
  return ok_status();
}

Status pack_panel(const PanelRows& rows, WeightFormat format, const IntPacking& how,
                  std::byte* out) {
  const StoredMatrix& m = *rows.matrix;
  if (is_int_format(format)) return pack_int_panel(rows, format, how, out);
  if (is_block_format(format)) return pack_block_panel(rows, format, how.rounding, out);
  if (format == WeightFormat::kMXFP4) return pack_chosen_mxfp4_panel(rows, how.rounding, out);
  if (format == WeightFormat::kFP8) return pack_fp8_panel(m, rows.first, rows.count, out);
  if (format == WeightFormat::kBF16 && m.dtype == DType::kBF16 && m.stride_k == 1 &&
      m.scale == nullptr) {
    pack_panel_bf16_pairs(rows, out);
    return ok_status();
  }
  float tile[kColumns][kTileK] = {};
  for (int64_t k0 = 0; k0 < m.k; k0 += kTileK) {
    const int64_t count = m.k - k0 < kTileK ? m.k - k0 : kTileK;
    for (int64_t c = 0; c < rows.count; ++c) read_row(m, rows.first + c, k0, count, tile[c]);
    if (format == WeightFormat::kF32)
      write_f32(tile, count, reinterpret_cast<float*>(out) + k0 * kColumns);
    else
      write_bf16(tile, count, reinterpret_cast<uint16_t*>(out) + k0 * kColumns);
  }
  return ok_status();
}

// pack(p) for every panel, by the pool where there is one; the first panel that fails speaks.
template <class Pack>
Status for_each_panel(int64_t panels, ThreadPool* pool, const Pack& pack) {
  if (pool == nullptr) {
    for (int64_t p = 0; p < panels; ++p) SLUICE_RETURN_IF_ERROR(pack(p));
    return ok_status();
  }
  std::vector<Status> done(static_cast<size_t>(panels), ok_status());
  pool->parallel_for(panels, 1, [&](int64_t p, int) { done[static_cast<size_t>(p)] = pack(p); });
  for (const Status& s : done) SLUICE_RETURN_IF_ERROR(s);
  return ok_status();
}

Status check_stored(const StoredMatrix& m, WeightFormat format, const IntPacking& how,
                    std::string_view what) {
  if (format == WeightFormat::kF16)
    return invalid_argument("pack: {}: format: expected one that has panels, got f16", what);
  if (format == WeightFormat::kMXFP4 && m.k % kMxfp4K != 0)
    return invalid_argument("pack: {}: mxfp4: K: expected a multiple of 32, got {}", what, m.k);
  if (how.block != 128 && how.block != 256 && how.block != kMostIntBlock)
    return invalid_argument("pack: {}: block: expected 128, 256 or 512, got {}", what, how.block);
  if (!is_packable(m.dtype))
    return invalid_argument("pack: {}: dtype: expected F32, F16, BF16, F8_E4M3 or F8_E5M2, got {}",
                            what, dtype_name(m.dtype));
  if (m.data == nullptr || m.n < 1 || m.k < 1 || m.n > kMaxPackedElements / m.k)
    return invalid_argument("pack: {}: expected [N, K] with N, K >= 1, got [{}, {}]", what, m.n,
                            m.k);
  if (m.scale != nullptr &&
      (m.scale_block_n < 1 || m.scale_block_k < 1 || m.scale_cols < ceil_div(m.k, m.scale_block_k)))
    return invalid_argument("pack: {}: scale: {} columns of blocks {} x {} do not cover K = {}",
                            what, m.scale_cols, m.scale_block_n, m.scale_block_k, m.k);
  return ok_status();
}

float mxfp4_element(const std::byte* panel, int64_t c, int64_t k) {
  const std::byte* block = panel + k / kMxfp4K * kMxfp4BlockBytes;
  const auto scale = static_cast<uint8_t>(block[c]);
  const auto pair = static_cast<uint8_t>(block[kColumns + k % kMxfp4K / 2 * kColumns + c]);
  return e2m1_to_f32((k & 1) != 0 ? pair >> 4 : pair & 15) * e8m0_to_f32(scale);
}

}  // namespace

void read_stored_row(const StoredMatrix& m, int64_t n, int64_t k0, int64_t count, float* out) {
  read_row(m, n, k0, count, out);
}

Status pack_matrix_into(const StoredMatrix& w, WeightFormat format, std::byte* out,
                        const IntPacking& how) {
  SLUICE_RETURN_IF_ERROR(check_stored(w, format, how, "w"));
  const size_t bytes = panel_bytes(format, w.k, how.block);
  return for_each_panel(ceil_div(w.n, kColumns), how.pool, [&](int64_t p) {
    return pack_panel({&w, p * kColumns, panel_rows(w.n, p)}, format, how,
                      out + static_cast<size_t>(p) * bytes);
  });
}

Result<PackedMatrix> pack_matrix(Device& device, const StoredMatrix& w, WeightFormat format,
                                 const IntPacking& how) {
  SLUICE_RETURN_IF_ERROR(check_stored(w, format, how, "w"));
  SLUICE_ASSIGN_OR_RETURN(
      Target t, allocate_panels(device, format, WeightLayout::kPanel16, w.n, w.k, how.block));
  SLUICE_RETURN_IF_ERROR(pack_matrix_into(w, format, t.data, how));
  return std::move(t.matrix);
}

Result<PackedMatrix> pack_glu(Device& device, const StoredMatrix& gate, const StoredMatrix& up,
                              WeightFormat format, const IntPacking& how) {
  SLUICE_RETURN_IF_ERROR(check_stored(gate, format, how, "gate"));
  SLUICE_RETURN_IF_ERROR(check_stored(up, format, how, "up"));
  if (gate.n != up.n || gate.k != up.k)
    return invalid_argument("pack: up: expected [I, D] = [{}, {}] as gate, got [{}, {}]", gate.n,
                            gate.k, up.n, up.k);
  SLUICE_ASSIGN_OR_RETURN(Target t, allocate_panels(device, format, WeightLayout::kGluPanel16,
                                                    2 * gate.n, gate.k, how.block));
  const size_t bytes = panel_bytes(format, gate.k, how.block);
  SLUICE_RETURN_IF_ERROR(for_each_panel(t.matrix.panels(), how.pool, [&](int64_t p) {
    return pack_panel({p % 2 == 0 ? &gate : &up, p / 2 * kColumns, panel_rows(gate.n, p / 2)},
                      format, how, t.data + static_cast<size_t>(p) * bytes);
  }));
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
    if (w.format == WeightFormat::kF32) return load_as<float>(w.data + at * 4);
    const auto bits = load_as<uint16_t>(w.data + at * 2);
    return w.format == WeightFormat::kF16 ? f16_to_f32(bits)
                                          : static_cast<float>(bf16::from_bits(bits));
  }
  const std::byte* p = w.data + static_cast<size_t>(panel) * panel_bytes(w.format, w.k, w.block);
  if (is_int_format(w.format) || is_block_format(w.format))
    return read_group(w.format, p, w.k, w.block, c, k / kGroupK).weight(k % kGroupK);
  if (w.format == WeightFormat::kFP8) return fp8_element(p, c, k);
  if (w.format == WeightFormat::kF32) return load_as<float>(p + (k * kColumns + c) * 4);
  if (w.format == WeightFormat::kBF16)
    return static_cast<float>(
        bf16::from_bits(load_as<uint16_t>(p + ((k / 2 * kColumns + c) * 2 + (k & 1)) * 2)));
  return mxfp4_element(p, c, k);
}

}  // namespace sluice
