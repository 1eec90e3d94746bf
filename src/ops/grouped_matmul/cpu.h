// The glu epilogue over the vector vocabulary V. Include only from *_avx2.cc and *_avx512.cc.
#pragma once

#include "ops/elementwise/cpu.h"
#include "ops/grouped_matmul/kernels.h"

namespace sluice::simd {

template <class V, class Form>
void glu_tile(const PanelTile& tile, const Activation& activation) {
  const PanelProduct& product = *tile.product;
  for (int64_t p = 0; p < tile.panels; p += 2) {
    const PanelColumns units = panel_columns(product, tile.panel + p);
    auto gate_bias = V::zero(), up_bias = V::zero();
    if (product.bias != nullptr) {
      gate_bias = V::load_n(product.bias + units.first, units.count);
      up_bias = V::load_n(product.bias + product.n / 2 + units.first, units.count);
    }
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float* acc = tile.acc + (r * tile.panels + p) * 16;
      auto gate = V::load(acc), up = V::load(acc + 16);
      if (product.bias != nullptr) gate = V::add(gate, gate_bias), up = V::add(up, up_bias);
      V::store_n(product.out + (tile.row + r) * product.out_stride + units.first,
                 activate<V, Form>(activation, gate, up), units.count);
    }
  }
}

template <class V>
void glu_epilogue(const PanelTile& tile) {
  const auto& activation = *static_cast<const Activation*>(tile.product->epilogue_data);
  with_activation<V>(activation, [&]<class Form>() { glu_tile<V, Form>(tile, activation); });
}

}  // namespace sluice::simd
