// Scalar truth of the glu epilogue.
#include "ops/elementwise/activate.h"
#include "ops/grouped_matmul/kernels.h"

namespace sluice {

void grouped_matmul_glu_reference(const PanelTile& tile) {
  const PanelProduct& product = *tile.product;
  const auto& activation = *static_cast<const Activation*>(product.epilogue_data);
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t p = 0; p < tile.panels; p += 2) {
      const PanelColumns units = panel_columns(product, tile.panel + p);
      const float* gate = tile.acc + (r * tile.panels + p) * 16;
      const float* up = gate + 16;
      float* out = product.out + (tile.row + r) * product.out_stride + units.first;
      for (int64_t c = 0; c < units.count; ++c) {
        const float* bias = product.bias + units.first + c;
        const float g = product.bias != nullptr ? gate[c] + bias[0] : gate[c];
        const float u = product.bias != nullptr ? up[c] + bias[product.n / 2] : up[c];
        out[c] = activate(activation, g, u);
      }
    }
}

}  // namespace sluice
