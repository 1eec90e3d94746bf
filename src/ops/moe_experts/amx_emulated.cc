// What cpu_amx.cc does, scalar: the epilogue for matmul's emulated rows.
#include "base/fp.h"
#include "ops/elementwise/activate.h"
#include "ops/moe_experts/kernels.h"

namespace sluice {

void moe_experts_bf16_amx_emulated(const PanelTile& tile) {
  const PanelProduct& product = *tile.product;
  const auto& activation = *static_cast<const Activation*>(product.epilogue_data);
  const RowTiles tiles = row_tiles(product.row_count);
  const int64_t steps = product.out_stride / 32;
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t p = 0; p < tile.panels; p += 2) {
      const PanelColumns units = panel_columns(product, tile.panel + p);
      const float* gate = tile.acc + (r * tile.panels + p) * 16;
      uint16_t* row = row_in_tiles(product.out, tiles, steps, tile.row + r);
      // The 16 units of the panel, and the rest of the step behind the last of all.
      const bool last = (units.first + 16) * 2 >= product.n;
      for (int64_t k = units.first; k < (last ? product.out_stride : units.first + 16); ++k) {
        const int64_t c = k - units.first;
        float v = 0.0f;
        if (c < units.count) {
          const float* bias = product.bias != nullptr ? product.bias + k : nullptr;
          v = activate(activation, bias != nullptr ? gate[c] + bias[0] : gate[c],
                       bias != nullptr ? gate[16 + c] + bias[product.n / 2] : gate[16 + c]);
        }
        row[k / 32 * 32 * tiles.rows + k % 32] = bf16(v).bits;
      }
    }
}

}  // namespace sluice
