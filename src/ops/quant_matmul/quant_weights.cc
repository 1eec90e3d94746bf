#include "ops/quant_matmul/quant_weights.h"

#include <cmath>
#include <cstring>

#include "ops/quant_matmul/quant_panels.h"

namespace sluice {
namespace {

constexpr int64_t kMostK = 65536;  // 128 * 255 * K stays within int32

size_t stored_bytes(QuantLayout layout, int64_t n, int64_t k) {
  const auto elements = static_cast<size_t>(n * k);
  return layout == QuantLayout::kInt8 || layout == QuantLayout::kFp8 ? elements : elements / 2;
}

QuantCodes codes_of(QuantLayout layout) {
  if (layout == QuantLayout::kFp8) return QuantCodes::kFp8;
  return layout == QuantLayout::kInt8 ? QuantCodes::kInt8 : QuantCodes::kInt4;
}

// Where the scales of stored weights lie, row by row.
struct ScaleGrid {
  int64_t block_n = 1, block_k = 0, rows = 0, cols = 0;
  int64_t at(int64_t n, int64_t k) const { return n / block_n * cols + k / block_k; }
};
ScaleGrid scale_grid(const StoredQuant& s) {
  ScaleGrid g;
  const bool fp8 = s.layout == QuantLayout::kFp8;
  g.block_n = !fp8 ? 1 : s.scale_block_n == 0 ? s.n : s.scale_block_n;
  g.block_k = fp8 ? s.scale_block_k : s.group;
  if (g.block_k == 0 || g.block_k > s.k) g.block_k = s.k;
  g.rows = (s.n + g.block_n - 1) / g.block_n;
  g.cols = quant_groups(s.k, g.block_k);
  return g;
}

Status check_layout(QuantLayout layout, int64_t n, int64_t k) {
  if (n < 1 || k < 1 || k > kMostK)
    return invalid_argument(
        "quant weights: [N, K]: expected N >= 1 and K from 1 to {}, got [{}, {}]", kMostK, n, k);
  if (layout == QuantLayout::kInt4RowPairs && n % 2 != 0)
    return invalid_argument("quant weights: N: {} hold pairs of rows, so N is even, got {}",
                            quant_layout_name(layout), n);
  if (layout == QuantLayout::kInt4KPairs && k % 2 != 0)
    return invalid_argument("quant weights: K: {} hold pairs of k, so K is even, got {}",
                            quant_layout_name(layout), k);
  return ok_status();
}

Status check_scales(const StoredQuant& s) {
  const bool fp8 = s.layout == QuantLayout::kFp8;
  if (fp8 && (s.scale_block_n < 0 || s.scale_block_k < 0))
    return invalid_argument("quant weights: scale blocks: expected >= 0, got [{}, {}]",
                            s.scale_block_n, s.scale_block_k);
  const ScaleGrid grid = scale_grid(s);
  const int64_t group = s.group == 0 || s.group > s.k ? s.k : s.group;
  if (grid.block_k != s.k && grid.block_k % group != 0)
    return invalid_argument(
        "quant weights: scales: K of a block: expected a multiple of the group of {}, got {}",
        group, grid.block_k);
  if (static_cast<int64_t>(s.scales.size()) != grid.rows * grid.cols)
    return invalid_argument("quant weights: scales: expected [N, groups] = [{}, {}], got {} values",
                            grid.rows, grid.cols, s.scales.size());
  for (size_t i = 0; i < s.scales.size(); ++i)
    if (!std::isfinite(s.scales[i]) || (!fp8 && s.scales[i] == 0))
      return invalid_argument("quant weights: scales: n = {}, group {}: expected finite{}, got {}",
                              static_cast<int64_t>(i) / grid.cols * grid.block_n,
                              static_cast<int64_t>(i) % grid.cols, fp8 ? "" : " and not zero",
                              s.scales[i]);
  return ok_status();
}

Status check(const StoredQuant& s) {
  SLUICE_RETURN_IF_ERROR(check_layout(s.layout, s.n, s.k));
  if (s.group != 0 && s.group < 32 && s.group != s.k)
    return invalid_argument(
        "quant weights: group: expected 0 (per channel) or 32 k and more, got {}", s.group);
  if (s.codes.size() != stored_bytes(s.layout, s.n, s.k))
    return invalid_argument(
        "quant weights: codes: expected {} bytes of [N, K] = [{}, {}] as {}, got {}",
        stored_bytes(s.layout, s.n, s.k), s.n, s.k, quant_layout_name(s.layout), s.codes.size());
  for (size_t i = 0; s.layout == QuantLayout::kFp8 && i < s.codes.size(); ++i)
    if ((s.codes[i] & std::byte{0x7f}) == std::byte{0x7f})
      return invalid_argument("quant weights: codes: (n, k) = ({}, {}) is NaN",
                              static_cast<int64_t>(i) / s.k, static_cast<int64_t>(i) % s.k);
  return check_scales(s);
}

int32_t nibble(std::byte byte, bool high) {
  return static_cast<int32_t>(high ? byte >> 4 : byte & std::byte{15});
}

int32_t code_of(QuantLayout layout, const std::byte* codes, int64_t k_count, int64_t n, int64_t k) {
  if (layout == QuantLayout::kFp8) return static_cast<uint8_t>(codes[n * k_count + k]);
  if (layout == QuantLayout::kInt8) return static_cast<int8_t>(codes[n * k_count + k]);
  if (layout == QuantLayout::kInt4KPairs)
    return nibble(codes[n * (k_count / 2) + k / 2], k % 2 != 0) - 8;
  const int32_t value = nibble(codes[n / 2 * k_count + k], n % 2 != 0);
  return value >= 8 ? value - 16 : value;
}

// Column c of a panel: code of k (within its group) into the group's lines.
void put(QuantCodes codes, std::byte* lines, int64_t k, int64_t c, int32_t code) {
  if (codes == QuantCodes::kFp8) {
    lines[16 * k + c] = static_cast<std::byte>(code);
    return;
  }
  if (codes == QuantCodes::kInt8) {
    lines[k / 4 * 64 + 4 * c + k % 4] = static_cast<std::byte>(128 + code);
    return;
  }
  std::byte& byte = lines[k / 8 * 64 + 4 * c + k % 4];
  byte |= static_cast<std::byte>((8 + code) << (k % 8 < 4 ? 0 : 4));
}

}  // namespace

std::string_view quant_layout_name(QuantLayout layout) {
  switch (layout) {
    case QuantLayout::kInt8:
      return "int8";
    case QuantLayout::kInt4RowPairs:
      return "int4 row pairs";
    case QuantLayout::kInt4KPairs:
      return "int4 k pairs";
    case QuantLayout::kFp8:
      return "fp8";
  }
  return "?";
}

int32_t stored_code(const StoredQuant& s, int64_t n, int64_t k) {
  return code_of(s.layout, s.codes.data(), s.k, n, k);
}

float stored_scale(const StoredQuant& s, int64_t n, int64_t k) {
  return s.scales[static_cast<size_t>(scale_grid(s).at(n, k))];
}

// Where the group of (n, k) begins in its panel.
static const std::byte* group_of(const QuantWeights& w, int64_t n, int64_t k) {
  return w.data + static_cast<size_t>(n / 16) * quant_panel_bytes(w.codes, w.k, w.group) +
         quant_group_at(w.codes, w.group, k / w.group);
}

float packed_scale(const QuantWeights& w, int64_t n, int64_t k) {
  float scale;
  std::memcpy(&scale, group_of(w, n, k) + 4 * (n % 16), 4);
  return scale;
}

int32_t packed_code(const QuantWeights& w, int64_t n, int64_t k) {
  const int64_t c = n % 16, at = k % w.group;
  const std::byte* lines = group_of(w, n, k) + 64;
  if (w.codes == QuantCodes::kFp8) return static_cast<uint8_t>(lines[16 * at + c]);
  if (w.codes == QuantCodes::kInt8)
    return static_cast<int32_t>(lines[at / 4 * 64 + 4 * c + at % 4]) - 128;
  return nibble(lines[at / 8 * 64 + 4 * c + at % 4], at % 8 >= 4) - 8;
}

Result<QuantWeights> pack_quant_weights(Device& device, const StoredQuant& s) {
  SLUICE_RETURN_IF_ERROR(check(s));
  QuantWeights w;
  w.codes = codes_of(s.layout);
  w.n = s.n;
  w.k = s.k;
  w.group = s.group == 0 || s.group > s.k ? s.k : s.group;
  const size_t panel_bytes = quant_panel_bytes(w.codes, w.k, w.group);
  w.bytes = panel_bytes * static_cast<size_t>(w.panels());
  SLUICE_ASSIGN_OR_RETURN(Buffer buffer, device.allocate(w.bytes + kQuantSlack, "quant weights"));
  std::byte* data = buffer.data();
  std::memset(data, 0, w.bytes + kQuantSlack);
  const ScaleGrid grid = scale_grid(s);
  for (int64_t n = 0; n < w.n; ++n)
    for (int64_t g = 0; g < quant_groups(w.k, w.group); ++g) {
      std::byte* at =
          data + static_cast<size_t>(n / 16) * panel_bytes + quant_group_at(w.codes, w.group, g);
      const auto scale = static_cast<size_t>(grid.at(n, g * w.group));
      std::memcpy(at + 4 * (n % 16), &s.scales[scale], 4);
      for (int64_t k = 0; k < quant_group_k(w.k, w.group, g); ++k)
        put(w.codes, at + 64, k, n % 16, stored_code(s, n, g * w.group + k));
    }
  w.data = data;
  w.owner = std::make_shared<Buffer>(std::move(buffer));
  return w;
}

Status repack_int4(int64_t n, int64_t k, QuantLayout from, std::span<const std::byte> in,
                   QuantLayout to, std::span<std::byte> out) {
  const auto is_int4 = [](QuantLayout layout) {
    return layout == QuantLayout::kInt4RowPairs || layout == QuantLayout::kInt4KPairs;
  };
  if (!is_int4(from) || !is_int4(to))
    return invalid_argument("repack_int4: expected two layouts of int4");
  SLUICE_RETURN_IF_ERROR(check_layout(from, n, k));
  SLUICE_RETURN_IF_ERROR(check_layout(to, n, k));
  const auto bytes = static_cast<size_t>(n * k / 2);
  if (in.size() != bytes || out.size() != bytes)
    return invalid_argument(
        "repack_int4: expected {} bytes of [N, K] = [{}, {}], got {} in and {} out", bytes, n, k,
        in.size(), out.size());
  std::memset(out.data(), 0, bytes);
  for (int64_t row = 0; row < n; ++row)
    for (int64_t i = 0; i < k; ++i) {
      const int32_t code = code_of(from, in.data(), k, row, i);
      if (to == QuantLayout::kInt4KPairs)
        out[static_cast<size_t>(row * (k / 2) + i / 2)] |=
            static_cast<std::byte>((code + 8) << (i % 2 * 4));
      else
        out[static_cast<size_t>(row / 2 * k + i)] |=
            static_cast<std::byte>((code & 15) << (row % 2 * 4));
    }
  return ok_status();
}

}  // namespace sluice
