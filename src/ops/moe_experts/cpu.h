// The epilogue between the two products: activation, rounding and the next product's row blocks in
// one go. Both products cut an expert's rows into the same blocks, so a tile of R rows fills a
// [k][R] block. Include only from *_avx2.cc, *_avx512.cc,
// *_avx512bf16.cc and *_amx.cc.
#pragma once

#include "ops/elementwise/cpu.h"
#include "ops/matmul/cpu.h"
#include "ops/moe_experts/kernels.h"

namespace sluice::simd {

template <class V, Arith arith, class Form>
void prepared_glu_tile(const PanelTile& tile, const Activation& activation) {
  const PanelProduct& product = *tile.product;
  const int64_t rows = tile.rows, padded_k = product.out_stride;
  constexpr int64_t kPerFloat = kPairs<V, arith> ? 2 : 1;
  float* block = product.out + tile.row * padded_k;
  for (int64_t p = 0; p < tile.panels; p += 2) {
    const PanelColumns units = panel_columns(product, tile.panel + p);
    auto gate_bias = V::zero(), up_bias = V::zero();
    if (product.bias != nullptr) {
      gate_bias = V::load_n(product.bias + units.first, units.count);
      up_bias = V::load_n(product.bias + product.n / 2 + units.first, units.count);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float* acc = tile.acc + (r * tile.panels + p) * 16;
      auto gate = V::load(acc), up = V::load(acc + 16);
      if (product.bias != nullptr) gate = V::add(gate, gate_bias), up = V::add(up, up_bias);
      auto v = activate<V, Form>(activation, gate, up);
      if constexpr (rounds_x(arith)) v = rounded_to_bf16<V>(v);
      v = V::select(V::first(units.count), v, V::zero());  // the padding of K is +0
      if constexpr (kPairs<V, arith>) {
        store_pairs<V>(block, rows, r, units.first, v);
        continue;
      }
      float* out = block + units.first * rows + r;
      if (rows == 1) {
        V::store(out, v);
        continue;
      }
      float lane[16];
      V::store(lane, v);
      for (int64_t i = 0; i < 16; ++i) out[i * rows] = lane[i];
    }
    // The last panel may leave half a step of K: zeros, too.
    const int64_t end = units.first + 16;
    if (end * 2 >= product.n)
      for (int64_t i = end * rows / kPerFloat; i < padded_k * rows / kPerFloat; ++i)
        block[i] = 0.0f;
  }
}

template <class V, Arith arith>
void prepared_glu(const PanelTile& tile) {
  const auto& activation = *static_cast<const Activation*>(tile.product->epilogue_data);
  with_activation<V>(activation,
                     [&]<class Form>() { prepared_glu_tile<V, arith, Form>(tile, activation); });
}

// The same for kernels over tiles: bf16 rows in tiles (matmul/panels.h:RowTiles).
template <class V, class Form>
void row_tiles_glu_tile(const PanelTile& tile, const Activation& activation) {
  const PanelProduct& product = *tile.product;
  const RowTiles tiles = row_tiles(product.row_count);
  const int64_t steps = product.out_stride / 32;
  for (int64_t p = 0; p < tile.panels; p += 2) {
    const PanelColumns units = panel_columns(product, tile.panel + p);
    auto gate_bias = V::zero(), up_bias = V::zero();
    if (product.bias != nullptr) {
      gate_bias = V::load_n(product.bias + units.first, units.count);
      up_bias = V::load_n(product.bias + product.n / 2 + units.first, units.count);
    }
    // Two pairs of panels make a step of K; the last one may leave half of it: zeros.
    const bool pad = (units.first + 16) * 2 >= product.n && units.first % 32 == 0;
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float* acc = tile.acc + (r * tile.panels + p) * 16;
      auto gate = V::load(acc), up = V::load(acc + 16);
      if (product.bias != nullptr) gate = V::add(gate, gate_bias), up = V::add(up, up_bias);
      const auto v = V::select(V::first(units.count), activate<V, Form>(activation, gate, up),
                               V::zero());  // the padding of K is +0
      uint16_t* out = row_in_tiles(product.out, tiles, steps, tile.row + r) +
                      units.first / 32 * 32 * tiles.rows + units.first % 32;
      V::store_bf16(out, v);
      if (pad) V::store_bf16(out + 16, V::zero());
    }
  }
}

template <class V>
void row_tiles_glu(const PanelTile& tile) {
  const auto& activation = *static_cast<const Activation*>(tile.product->epilogue_data);
  with_activation<V>(activation,
                     [&]<class Form>() { row_tiles_glu_tile<V, Form>(tile, activation); });
}

}  // namespace sluice::simd
