// GGUF's blocks as they are stored, into panels: no code or scale changes.
#include <algorithm>

#include "ops/matmul/pack.h"
#include "ops/matmul/pack_target.h"
#include "ops/matmul/stored_blocks.h"
#include "weights/block_panels.h"

namespace sluice {
namespace {

Status check_blocks(const StoredBlocks& w, std::string_view what) {
  const BlockTraits t = block_traits(w.format);
  if (!is_block_format(w.format) || t.stored_k == 0)
    return invalid_argument("pack: {}: format: expected a block format of GGUF, got {}", what,
                            weight_format_name(w.format));
  constexpr int64_t kMost = int64_t{1} << 48;
  if (w.data == nullptr || w.n < 1 || w.k < 1 || w.n > kMost / w.k)
    return invalid_argument("pack: {}: expected [N, K] with N, K >= 1, got [{}, {}]", what, w.n,
                            w.k);
  if (w.k % t.stored_k != 0)
    return invalid_argument("pack: {}: {}: K: expected a multiple of {}, got {}", what,
                            weight_format_name(w.format), t.stored_k, w.k);
  return ok_status();
}

// Rows [first, first + count) as one panel.
Status pack_panel(const StoredBlocks& w, int64_t first, int64_t count, std::byte* out) {
  const BlockTraits t = block_traits(w.format);
  const auto row_bytes = static_cast<int64_t>(stored_row_bytes(w.format, w.k));
  const int64_t all = block_groups(w.k);
  for (int64_t b = 0; b * kBlockGroups < all; ++b) {
    const int64_t groups = std::min(all - b * kBlockGroups, kBlockGroups);
    for (int64_t c = 0; c < count; ++c) {
      const BlockColumn column =
          read_stored_blocks(w.format, w.data + (first + c) * row_bytes, b, groups);
      if (!finite_scales(w.format, column, groups))
        return data_loss("pack: {}: a scale of row N = {}, K in [{}, {}) is not finite",
                         weight_format_name(w.format), first + c, b * kBlockGroups * kGroupK,
                         (b * kBlockGroups + groups) * kGroupK);
      write_block_column(w.format, column, c, groups, out);
    }
    out += block_bytes(t, groups);
  }
  return ok_status();
}

}  // namespace

Result<PackedMatrix> pack_stored_blocks(Device& device, const StoredBlocks& w) {
  SLUICE_RETURN_IF_ERROR(check_blocks(w, "w"));
  SLUICE_ASSIGN_OR_RETURN(Target t,
                          allocate_panels(device, w.format, WeightLayout::kPanel16, w.n, w.k));
  const size_t bytes = panel_bytes(w.format, w.k);
  for (int64_t p = 0; p < t.matrix.panels(); ++p)
    SLUICE_RETURN_IF_ERROR(pack_panel(w, p * kPanelColumns, panel_rows(w.n, p),
                                      t.data + static_cast<size_t>(p) * bytes));
  return std::move(t.matrix);
}

Result<PackedMatrix> pack_stored_blocks_glu(Device& device, const StoredBlocks& gate,
                                            const StoredBlocks& up) {
  SLUICE_RETURN_IF_ERROR(check_blocks(gate, "gate"));
  SLUICE_RETURN_IF_ERROR(check_blocks(up, "up"));
  if (gate.format != up.format || gate.n != up.n || gate.k != up.k)
    return invalid_argument(
        "pack: up: expected [I, D] = [{}, {}] in {} as gate, got [{}, {}] in {}", gate.n, gate.k,
        weight_format_name(gate.format), up.n, up.k, weight_format_name(up.format));
  SLUICE_ASSIGN_OR_RETURN(Target t, allocate_panels(device, gate.format, WeightLayout::kGluPanel16,
                                                    2 * gate.n, gate.k));
  const size_t bytes = panel_bytes(gate.format, gate.k);
  for (int64_t p = 0; p < t.matrix.panels(); ++p)
    SLUICE_RETURN_IF_ERROR(pack_panel(p % 2 == 0 ? gate : up, p / 2 * kPanelColumns,
                                      panel_rows(gate.n, p / 2),
                                      t.data + static_cast<size_t>(p) * bytes));
  return std::move(t.matrix);
}

}  // namespace sluice
