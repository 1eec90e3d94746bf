// quant_matmul over tiles: integers by the 8-bit products, fp8 as bf16, in which every code is
// exact. `Machine` names the tiles and the vector steps around them, so that the whole kernel also
// runs emulated.
//
// The rows of an expert are cut into tiles of one size; the last begins earlier where rows would be
// missing, and makes some of them twice. kPassTiles of them pass over a pair of panels together: a
// piece of at most kPieceSteps steps of a group is made into tiles by the first pair of row tiles,
// every other one uses it, and at the end of a group its sums become terms. x is zero behind a
// group, so that a product of integers may take what follows the group in the panel for weights.
//
// Include only from *_amx.cc and *_emulated.cc.
#pragma once

#include "ops/quant_matmul/kernels.h"
#include "simd/amx.h"
#include "simd/math.h"

namespace sluice::simd {

// The sums of a group of one row tile and one panel, and what makes terms of them.
struct QuantTerms {
  const std::byte* sums = nullptr;  // [rows][16], int32 or f32
  float* acc = nullptr;             // [rows][16]
  int64_t rows = 0;
  bool first = false;                      // of a row's groups
  const std::byte* corrections = nullptr;  // int32 of each row, row_bytes apart
  int64_t row_bytes = 0;
  const float* x_scale = nullptr;  // of each row, x_stride apart
  int64_t x_stride = 0;
  const float* w_scale = nullptr;  // [16]
};

template <class Machine, QuantCodes codes>
class QuantTileProduct {
 public:
  using Tiles = typename Machine::Tiles;

  explicit QuantTileProduct(const QuantProduct& product)
      : p_(product),
        groups_(quant_groups(product.k, product.group)),
        row_bytes_(quant_row_bytes(codes, product.k, product.group)),
        codes_at_(quant_corrections_bytes(codes, groups_)),
        tiles_((product.rows + 15) / 16),
        rows_((product.rows + tiles_ - 1) / tiles_) {}

  void run() {
    TileConfig config;
    for (int t = 0; t < 6; ++t) config.set(t, rows_, 64);
    config.set(6, 16, 64);
    config.set(7, 16, 64);
    Tiles tiles(config);
    for (first_ = 0; first_ < tiles_; first_ += kPassTiles) {
      count_ = tiles_ - first_ < kPassTiles ? tiles_ - first_ : kPassTiles;
      for (panel_ = p_.panel_begin; panel_ < p_.panel_end; panel_ += 2) {
        if (p_.panel_end - panel_ > 1)
          multiply_panels<2>(tiles);
        else
          multiply_panels<1>(tiles);
      }
    }
  }

 private:
  static constexpr bool kFp8 = codes == QuantCodes::kFp8;
  static constexpr bool kAsTheyLie = codes == QuantCodes::kInt8;  // a panel's lines are tiles
  static constexpr int64_t kStepK = kFp8 ? 32 : 64;
  // Bytes of a step in a panel: 16 columns.
  static constexpr int64_t kStepBytes = kStepK * 16 * quant_bits(codes) / 8;
  static constexpr int64_t kPassTiles = 8, kPieceSteps = 8;
  static constexpr int64_t kTile = 1024;

  // The first row of tile t.
  int64_t row_of(int64_t t) const {
    return t * rows_ < p_.rows - rows_ ? t * rows_ : p_.rows - rows_;
  }
  const std::byte* group_at(int64_t p, int64_t g) const {
    return p_.panels + static_cast<size_t>(panel_ + p) * p_.panel_bytes +
           quant_group_at(codes, p_.group, g);
  }

  template <int Panels>
  void multiply_panels(Tiles& tiles) {
    for (int64_t g = 0; g < groups_; ++g) {
      const int64_t steps = quant_tile_k(codes, quant_group_k(p_.k, p_.group, g)) / kStepK;
      for (int64_t step = 0; step < steps; step += kPieceSteps) {
        const int64_t end = step + kPieceSteps < steps ? step + kPieceSteps : steps;
        begin_piece<Panels>(g, step);
        if (count_ > 1)
          multiply_piece<2, Panels, !kAsTheyLie>(tiles, 0, g, step, end, steps);
        else
          multiply_piece<1, Panels, !kAsTheyLie>(tiles, 0, g, step, end, steps);
        for (int64_t t = 2; t < count_; t += 2) {
          if (t + 1 < count_)
            multiply_piece<2, Panels, false>(tiles, t, g, step, end, steps);
          else
            multiply_piece<1, Panels, false>(tiles, t, g, step, end, steps);
        }
      }
    }
    for (int64_t t = 0; t < count_; ++t)
      for (int64_t p = 0; p < Panels; ++p) store(t, p);
  }

  template <int Panels>
  void begin_piece(int64_t g, int64_t begin) {
    for (int64_t p = 0; p < Panels; ++p) {
      lines_[p] = group_at(p, g) + 64 + begin * kStepBytes;
      b_[p] = kAsTheyLie ? lines_[p] : slots_[p][0];
    }
  }

  // Step s of the piece as a tile of each panel.
  template <int Panels>
  SLUICE_SIMD_INLINE void make_step(int64_t s) {
    for (int64_t p = 0; p < Panels; ++p) {
      const std::byte* lines = lines_[p] + s * kStepBytes;
      for (int64_t line = 0; line < kStepBytes; line += 64)
        Machine::prefetch(lines + line + kAhead);
      if constexpr (kFp8)
        Machine::expand_fp8(lines, slots_[p][s]);
      else
        Machine::expand_int4(lines, slots_[p][s]);
    }
  }

  template <int sum, int left, int right>
  SLUICE_SIMD_INLINE static void dot(Tiles& tiles) {
    if constexpr (kFp8)
      tiles.template dp_bf16<sum, left, right>();
    else
      tiles.template dp_s8u8<sum, left, right>();
  }

  // Tiles 0 to 3 hold the sums (row tile + 2 * panel), 4 and 5 rows, 6 and 7 panels. The first rows
  // make the piece's tiles on the way: products of one step run while the next one is made (fp8, a
  // layer of Qwen3-30B-A3B on two cores, 1, 64 and 512 tokens: 1.71, 28.2 and 45.3 ms; the whole
  // piece before its products 1.79, 30.0 and 53.5).
  template <int Rows, int Panels, bool makes>
  SLUICE_SIMD_INLINE void multiply_piece(Tiles& tiles, int64_t t, int64_t g, int64_t step,
                                         int64_t end, int64_t steps) {
    begin_sums<Rows, Panels>(tiles, t, step == 0);
    const std::byte* a =
        row(t) + codes_at_ + g * (quant_tile_k(codes, p_.group) / kStepK) * 64 + step * 64;
    const int64_t a_next = Rows > 1 ? row(t + 1) - row(t) : 0;
    for (int64_t s = 0; s < end - step; ++s, a += 64) {
      if constexpr (makes) make_step<Panels>(s);
      tiles.template load<6>(b_[0] + s * kTile, 64);
      tiles.template load<4>(a, row_bytes_);
      dot<0, 4, 6>(tiles);
      if constexpr (Rows > 1) {
        tiles.template load<5>(a + a_next, row_bytes_);
        dot<1, 5, 6>(tiles);
      }
      if constexpr (Panels > 1) {
        tiles.template load<7>(b_[1] + s * kTile, 64);
        dot<2, 4, 7>(tiles);
        if constexpr (Rows > 1) dot<3, 5, 7>(tiles);
      }
    }
    tiles.template store<0>(sums_[t][0], 64);
    if constexpr (Rows > 1) tiles.template store<1>(sums_[t + 1][0], 64);
    if constexpr (Panels > 1) {
      tiles.template store<2>(sums_[t][1], 64);
      if constexpr (Rows > 1) tiles.template store<3>(sums_[t + 1][1], 64);
    }
    if (end < steps) return;
    for (int64_t i = t; i < t + Rows; ++i)
      for (int64_t p = 0; p < Panels; ++p) add_terms(i, p, g);
  }

  template <int Rows, int Panels>
  SLUICE_SIMD_INLINE void begin_sums(Tiles& tiles, int64_t t, bool anew) {
    if (anew) {
      tiles.template zero<0>();
      tiles.template zero<1>();
      tiles.template zero<2>();
      tiles.template zero<3>();
      return;
    }
    tiles.template load<0>(sums_[t][0], 64);
    if constexpr (Rows > 1) tiles.template load<1>(sums_[t + 1][0], 64);
    if constexpr (Panels > 1) {
      tiles.template load<2>(sums_[t][1], 64);
      if constexpr (Rows > 1) tiles.template load<3>(sums_[t + 1][1], 64);
    }
  }

  const std::byte* row(int64_t t) const { return p_.prepared + row_of(first_ + t) * row_bytes_; }

  void add_terms(int64_t t, int64_t p, int64_t g) {
    QuantTerms terms;
    terms.sums = sums_[t][p];
    terms.acc = acc_[t][p];
    terms.rows = rows_;
    terms.first = g == 0;
    terms.corrections = row(t) + 4 * g;
    terms.row_bytes = row_bytes_;
    terms.x_stride = p_.x_scale.row_stride;
    terms.x_scale =
        p_.x_scale.data + row_of(first_ + t) * terms.x_stride + g * p_.x_scale.group_stride;
    terms.w_scale = reinterpret_cast<const float*>(group_at(p, g));
    Machine::template add_terms<codes>(terms);
  }

  void store(int64_t t, int64_t p) {
    const int64_t column = (panel_ + p) * 16, left = p_.n - column, begin = row_of(first_ + t);
    for (int64_t r = 0; r < rows_; ++r)
      Machine::store_row(p_.out + (begin + r) * p_.out_stride + column, acc_[t][p] + 16 * r,
                         p_.round, left < 16 ? left : 16);
  }

  static constexpr int64_t kAhead = 4096;
  const QuantProduct& p_;
  const int64_t groups_, row_bytes_, codes_at_, tiles_, rows_;
  int64_t first_ = 0, count_ = 0, panel_ = 0;  // the pass's row tiles and panels
  const std::byte* lines_[2] = {};             // the piece in each panel
  const std::byte* b_[2] = {};                 // its tiles
  alignas(64) std::byte sums_[kPassTiles][2][kTile];
  alignas(64) float acc_[kPassTiles][2][256];
  alignas(64) std::byte slots_[2][kPieceSteps][kTile];
};

template <class Machine, QuantCodes codes>
void multiply_quant_tiles(const QuantProduct& p) {
  QuantTileProduct<Machine, codes>(p).run();
}

// Integers as they are, whole steps of each group with zeros behind it; fp8 as bf16.
template <class Machine, QuantCodes codes>
void prepare_quant_tiles(const QuantProduct& p, int64_t begin, int64_t end) {
  const int64_t groups = quant_groups(p.k, p.group);
  const int64_t row_bytes = quant_row_bytes(codes, p.k, p.group);
  for (int64_t r = begin; r < end; ++r) {
    const int8_t* x = p.x + r * p.x_stride;
    std::byte* row = p.prepared + r * row_bytes;
    auto* corrections = reinterpret_cast<int32_t*>(row);
    std::byte* to = row + quant_corrections_bytes(codes, groups);
    for (int64_t g = 0; g < groups; ++g, x += p.group) {
      const int64_t count = quant_group_k(p.k, p.group, g), padded = quant_tile_k(codes, count);
      if constexpr (codes == QuantCodes::kFp8) {
        Machine::arrange_fp8(x, count, padded, to);
        to += 2 * padded;
      } else {
        const int32_t sum = Machine::arrange(x, count, padded, to);
        corrections[g] = (codes == QuantCodes::kInt8 ? -128 : -8) * sum;
        to += padded;
      }
    }
  }
}

template <class Machine, QuantCodes codes>
inline constexpr QuantKernel kQuantTileKernel = {prepare_quant_tiles<Machine, codes>,
                                                 multiply_quant_tiles<Machine, codes>};

}  // namespace sluice::simd
