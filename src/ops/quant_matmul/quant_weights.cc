#include "ops/quant_matmul/quant_weights.h"

#include <cmath>
#include <cstring>

#include "ops/quant_matmul/quant_panels.h"

namespace sluice {
namespace {

constexpr int64_t kMostK = 65536;  // 128 * 255 * K stays within int32

size_t stored_bytes(QuantLayout layout, int64_t n, int64_t k) {
  const auto elements = static_cast<size_t>(n * k);
  return layout == QuantLayout::kInt8 ? elements : elements / 2;
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

Status check(const StoredQuant& s, int64_t group) {
  SLUICE_RETURN_IF_ERROR(check_layout(s.layout, s.n, s.k));
  if (s.group != 0 && s.group < 32 && s.group != s.k)
    return invalid_argument(
        "quant weights: group: expected 0 (per channel) or 32 k and more, got {}", s.group);
  if (s.codes.size() != stored_bytes(s.layout, s.n, s.k))
    return invalid_argument(
        "quant weights: codes: expected {} bytes of [N, K] = [{}, {}] as {}, got {}",
        stored_bytes(s.layout, s.n, s.k), s.n, s.k, quant_layout_name(s.layout), s.codes.size());
  const int64_t groups = quant_groups(s.k, group);
  if (static_cast<int64_t>(s.scales.size()) != s.n * groups)
    return invalid_argument("quant weights: scales: expected [N, groups] = [{}, {}], got {} values",
                            s.n, groups, s.scales.size());
  for (size_t i = 0; i < s.scales.size(); ++i)
    if (!std::isfinite(s.scales[i]) || s.scales[i] == 0)
      return invalid_argument(
          "quant weights: scales: n = {}, group {}: expected finite and not zero, got {}",
          static_cast<int64_t>(i) / groups, static_cast<int64_t>(i) % groups, s.scales[i]);
  return ok_status();
}

int32_t nibble(std::byte byte, bool high) {
  return static_cast<int32_t>(high ? byte >> 4 : byte & std::byte{15});
}

int32_t code_of(QuantLayout layout, const std::byte* codes, int64_t k_count, int64_t n, int64_t k) {
  if (layout == QuantLayout::kInt8) return static_cast<int8_t>(codes[n * k_count + k]);
  if (layout == QuantLayout::kInt4KPairs)
    return nibble(codes[n * (k_count / 2) + k / 2], k % 2 != 0) - 8;
  const int32_t value = nibble(codes[n / 2 * k_count + k], n % 2 != 0);
  return value >= 8 ? value - 16 : value;
}

// Column c of a panel: code of k (within its group) into the group's lines.
void put(int bits, std::byte* lines, int64_t k, int64_t c, int32_t code) {
  if (bits == 8) {
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
  }
  return "?";
}

int32_t stored_code(const StoredQuant& s, int64_t n, int64_t k) {
  return code_of(s.layout, s.codes.data(), s.k, n, k);
}

int32_t packed_code(const QuantWeights& w, int64_t n, int64_t k) {
  const int64_t g = k / w.group, c = n % 16, at = k - g * w.group;
  const std::byte* lines = w.data +
                           static_cast<size_t>(n / 16) * quant_panel_bytes(w.bits, w.k, w.group) +
                           quant_group_at(w.bits, w.group, g) + 64;
  if (w.bits == 8) return static_cast<int32_t>(lines[at / 4 * 64 + 4 * c + at % 4]) - 128;
  return nibble(lines[at / 8 * 64 + 4 * c + at % 4], at % 8 >= 4) - 8;
}

Result<QuantWeights> pack_quant_weights(Device& device, const StoredQuant& s) {
  const int64_t group = s.group == 0 || s.group > s.k ? s.k : s.group;
  SLUICE_RETURN_IF_ERROR(check(s, group));
  QuantWeights w;
  w.bits = s.layout == QuantLayout::kInt8 ? 8 : 4;
  w.n = s.n;
  w.k = s.k;
  w.group = group;
  const size_t panel_bytes = quant_panel_bytes(w.bits, w.k, w.group);
  w.bytes = panel_bytes * static_cast<size_t>(w.panels());
  SLUICE_ASSIGN_OR_RETURN(Buffer buffer, device.allocate(w.bytes, "quant weights"));
  std::byte* data = buffer.data();
  std::memset(data, 0, w.bytes);
  const int64_t groups = quant_groups(w.k, w.group);
  for (int64_t n = 0; n < w.n; ++n)
    for (int64_t g = 0; g < groups; ++g) {
      std::byte* at =
          data + static_cast<size_t>(n / 16) * panel_bytes + quant_group_at(w.bits, w.group, g);
      std::memcpy(at + 4 * (n % 16), &s.scales[static_cast<size_t>(n * groups + g)], 4);
      for (int64_t k = 0; k < quant_group_k(w.k, w.group, g); ++k)
        put(w.bits, at + 64, k, n % 16, stored_code(s, n, g * w.group + k));
    }
  w.data = data;
  w.owner = std::make_shared<Buffer>(std::move(buffer));
  return w;
}

Status repack_int4(int64_t n, int64_t k, QuantLayout from, std::span<const std::byte> in,
                   QuantLayout to, std::span<std::byte> out) {
  if (from == QuantLayout::kInt8 || to == QuantLayout::kInt8)
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
