// Packing of MXFP4 as it is stored: codes and scales move, none is chosen.
#include <vector>

#include "ops/matmul/pack.h"
#include "ops/matmul/pack_target.h"
#include "ops/matmul/quantize_mxfp4.h"

namespace sluice {
namespace {

// Panels hold no -0: the kernels need not keep its sign apart from +0's (weights/packed.h).
std::byte without_negative_zero(std::byte pair) {
  auto b = static_cast<unsigned>(pair);
  if ((b & 0x0f) == 0x08) b &= 0xf0;
  if ((b & 0xf0) == 0x80) b &= 0x0f;
  return static_cast<std::byte>(b);
}

Status pack_panel(const StoredMxfp4& w, int64_t first, int64_t columns, std::byte* out) {
  const int64_t blocks = w.k / kMxfp4K;
  for (int64_t b = 0; b < blocks; ++b) {
    std::byte* block = out + b * kMxfp4BlockBytes;
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t row = (first + c) * w.row_step, at = row * blocks + b;
      if (w.scales[at] == std::byte{255})
        return data_loss("pack: mxfp4: the scale of row N = {}, block {} is NaN (255)", row, b);
      block[c] = w.scales[at];
      for (int64_t j = 0; j < kMxfp4K / 2; ++j)
        block[kPanelColumns * (j + 1) + c] =
            without_negative_zero(w.blocks[at * (kMxfp4K / 2) + j]);
    }
  }
  return ok_status();
}

Status check(const StoredMxfp4& w) {
  if (w.blocks == nullptr || w.scales == nullptr || w.n < 1 || w.k < 1 ||
      w.n > kMaxPackedElements / w.k)
    return invalid_argument("pack: mxfp4: expected [N, K] with N, K >= 1, got [{}, {}]", w.n, w.k);
  if (w.k % kMxfp4K != 0)
    return invalid_argument("pack: mxfp4: K: expected a multiple of 32, got {}", w.k);
  return ok_status();
}

}  // namespace

Result<PackedMatrix> pack_mxfp4(Device& device, const StoredMxfp4& w) {
  SLUICE_RETURN_IF_ERROR(check(w));
  SLUICE_ASSIGN_OR_RETURN(
      Target t, allocate_panels(device, WeightFormat::kMXFP4, WeightLayout::kPanel16, w.n, w.k));
  const size_t bytes = panel_bytes(WeightFormat::kMXFP4, w.k);
  for (int64_t p = 0; p < t.matrix.panels(); ++p)
    SLUICE_RETURN_IF_ERROR(pack_panel(w, p * kPanelColumns, panel_rows(w.n, p),
                                      t.data + static_cast<size_t>(p) * bytes));
  return std::move(t.matrix);
}

Result<PackedMatrix> pack_mxfp4_glu(Device& device, const StoredMxfp4& gate,
                                    const StoredMxfp4& up) {
  SLUICE_RETURN_IF_ERROR(check(gate));
  SLUICE_RETURN_IF_ERROR(check(up));
  if (gate.n != up.n || gate.k != up.k)
    return invalid_argument("pack: up: expected [I, D] = [{}, {}] as gate, got [{}, {}]", gate.n,
                            gate.k, up.n, up.k);
  SLUICE_ASSIGN_OR_RETURN(Target t, allocate_panels(device, WeightFormat::kMXFP4,
                                                    WeightLayout::kGluPanel16, 2 * gate.n, gate.k));
  const size_t bytes = panel_bytes(WeightFormat::kMXFP4, gate.k);
  for (int64_t p = 0; p < t.matrix.panels(); ++p)
    SLUICE_RETURN_IF_ERROR(pack_panel(p % 2 == 0 ? gate : up, p / 2 * kPanelColumns,
                                      panel_rows(gate.n, p / 2),
                                      t.data + static_cast<size_t>(p) * bytes));
  return std::move(t.matrix);
}

Result<PackedMatrix> pack_mxfp4_glu_interleaved(Device& device, const StoredMxfp4& gate_up) {
  SLUICE_RETURN_IF_ERROR(check(gate_up));
  if (gate_up.n % 2 != 0)
    return invalid_argument("pack: gate_up: N: expected 2 I, even, got {}", gate_up.n);
  StoredMxfp4 gate = gate_up;
  gate.n = gate_up.n / 2;
  gate.row_step = 2;
  StoredMxfp4 up = gate;
  up.blocks += gate.k / 2;
  up.scales += gate.k / kMxfp4K;
  return pack_mxfp4_glu(device, gate, up);
}

}  // namespace sluice
