// The panel kernels over the vector vocabulary V: the float ariths, every weight format.
//
// Rows are prepared in blocks of R rows, [k][R], so that a step of k broadcasts R neighbours; a
// block of R rows and P panels keeps its accumulators in registers for the whole of K. Blocking
// decides only which products are computed together, never the order inside one.
//
// Where V has bf16 dot products, rows for bf16_dot are prepared as [k / 2][R] pairs of bf16.
//
// Include only from *_avx2.cc, *_avx512.cc and *_avx512bf16.cc.
#pragma once

#include "ops/matmul/panels.h"
#include "simd/math.h"
#include "weights/fp8_panels.h"

namespace sluice::simd {

inline constexpr int64_t kStepK = 32;  // k per step of bf16_tile and per MXFP4 block
inline constexpr int kMostRows = 12;   // of any block
// Panels of a block. At one row two streams read 37 to 40 GB/s of bf16 from memory on one core of a
// Zen 5, where a plain sum reads 40; four streams 27, because the hardware prefetcher loses them.
// MXFP4 is bound by its arithmetic instead and wants more chains at once.
constexpr int most_panels(WeightFormat format) {
  return format == WeightFormat::kMXFP4 ? 4 : 2;
}
// How far ahead of its use a weight is asked for, all streams together. Less starves blocks of many
// rows, which spend longer on a line: at 8 rows 1 KiB gave 14 GB/s and 8 KiB 25.
inline constexpr int64_t kPrefetchBytes = 8192;

template <class V>
concept DotsBf16 = requires {
  &V::dot_bf16;
};
// Whether rows are pairs of bf16.
template <class V, Arith arith>
inline constexpr bool kPairs = arith == Arith::kBf16Dot&& DotsBf16<V>;

// Block sizes by the registers of V: accumulators may take three quarters of them.
template <class V, Arith arith>
struct Blocking {
  static constexpr int kChains = arith == Arith::kBf16Tile ? 2 : 1;
  static constexpr int kBudget = V::kRegisters * 3 / 4 / kChains;
  static constexpr int kMaxRows = kBudget < kMostRows ? kBudget : kMostRows;
  static constexpr int panels(int rows, WeightFormat format) {
    int p = 1;
    while (p * 2 * rows <= kBudget && p * 2 <= most_panels(format)) p *= 2;
    return p;
  }
  // Rows of the next block when `left` are to do: no block of one row beside a large one.
  static int64_t next_rows(int64_t left) {
    constexpr int8_t kNext[kMostRows] = {0, 1, 2, 3, 4, 3, 6, 4, 8, 6, 6, 8};
    return left >= kMaxRows ? kMaxRows : kNext[left];
  }
};

template <class V>
typename V::F rounded_to_bf16(typename V::F v) {
  const auto b = V::bits_of(v);
  const auto upper = V::seti(static_cast<int32_t>(0xffff0000u));
  const auto odd = V::andi(V::template shr<16>(b), V::seti(1));
  const auto rounded = V::andi(V::addi(V::addi(b, V::seti(0x7fff)), odd), upper);
  const auto quiet = V::andi(V::ori(b, V::seti(0x00400000)), upper);
  return V::select(V::is_nan(v), V::from_bits(quiet), V::from_bits(rounded));
}

// Readers of one panel: begin() at each step of 32 k, then pair j gives the weights of k = 2 j and
// 2 j + 1 of the step. Steps lie kStepBytes apart, or where step() says.
template <class V, WeightFormat format>
struct PanelReader;

template <class V>
struct PanelReader<V, WeightFormat::kF32> {
  static constexpr int64_t kStepBytes = kStepK * 64;
  void begin(const std::byte*) {}
  typename V::F even(const std::byte* step, int64_t j) const {
    return V::load(reinterpret_cast<const float*>(step + j * 128));
  }
  typename V::F odd(const std::byte* step, int64_t j) const {
    return V::load(reinterpret_cast<const float*>(step + j * 128 + 64));
  }
};
template <class V>
struct PanelReader<V, WeightFormat::kBF16> {
  static constexpr int64_t kStepBytes = kStepK * 32;
  void begin(const std::byte*) {}
  typename V::F even(const std::byte* step, int64_t j) const {
    return V::from_bits(V::template shl<16>(V::load_i32(step + j * 64)));
  }
  typename V::F odd(const std::byte* step, int64_t j) const {
    const auto upper = V::seti(static_cast<int32_t>(0xffff0000u));
    return V::from_bits(V::andi(V::load_i32(step + j * 64), upper));
  }
  typename V::I pair(const std::byte* step, int64_t j) const { return V::load_i32(step + j * 64); }
};
template <class V>
struct PanelReader<V, WeightFormat::kMXFP4> {
  static constexpr int64_t kStepBytes = 16 * 17;
  typename V::F scale;
  // E8M0 is the exponent field; 0 (2^-127) reads as zero, as its subnormal would.
  void begin(const std::byte* step) { scale = V::from_bits(V::template shl<23>(V::load_u8(step))); }
  typename V::F even(const std::byte* step, int64_t j) const {
    return V::mul(V::e2m1(V::load_u8(step + 16 + j * 16)), scale);
  }
  typename V::F odd(const std::byte* step, int64_t j) const {
    return V::mul(V::e2m1(V::template shr<4>(V::load_u8(step + 16 + j * 16))), scale);
  }
  typename V::I pair(const std::byte* step, int64_t j) const {
    return V::ori(V::template shr<16>(V::bits_of(even(step, j))), V::bits_of(odd(step, j)));
  }
};

// fp8: the format's own rounding is the arith's.
template <class V, Arith arith>
struct Fp8Reader {
  static constexpr int64_t kStepBytes = kStepK * 16;
  typename V::F scale;
  static const std::byte* step(const std::byte* panel, int64_t k) {
    return panel + fp8_codes_at(k);
  }
  // A code's half with the same bits is 2^-8 of its value; the scale makes up for it, exactly.
  void begin(const std::byte* step, int64_t k) {
    const auto* scales =
        reinterpret_cast<const float*>(step - (fp8_codes_at(k) - fp8_scales_at(k)));
    scale = V::mul(V::load(scales), V::set1(256.0f));
  }
  typename V::F even(const std::byte* step, int64_t j) const { return weights(step + j * 32); }
  typename V::F odd(const std::byte* step, int64_t j) const { return weights(step + j * 32 + 16); }
  typename V::F weights(const std::byte* codes) const {
    const auto w = V::mul(V::load_e4m3_256th(codes), scale);
    if constexpr (arith == Arith::kF32Fma) return w;
    const auto b = V::bits_of(w), odd = V::andi(V::template shr<16>(b), V::seti(1));
    const auto up = V::addi(V::addi(b, V::seti(0x7fff)), odd);  // never NaN
    return V::from_bits(V::andi(up, V::seti(static_cast<int32_t>(0xffff0000u))));
  }
};

template <class V, WeightFormat format, Arith arith>
struct ReaderOf {
  using type = PanelReader<V, format>;
};
template <class V, Arith arith>
struct ReaderOf<V, WeightFormat::kFP8, arith> {
  using type = Fp8Reader<V, arith>;
};

// Where the step at k begins.
template <class Reader>
SLUICE_SIMD_INLINE const std::byte* step_at(const std::byte* panel, int64_t k) {
  if constexpr (requires { Reader::step(panel, k); })
    return Reader::step(panel, k);
  else
    return panel + k / kStepK * Reader::kStepBytes;
}

// R rows x P panels: acc[(r * stride + p) * 16 ...] = dot products, in the order of the arith.
struct TileShape {
  const float* x = nullptr;  // [k][R]
  const std::byte* panel = nullptr;
  size_t panel_bytes = 0;
  int64_t k = 0;
  float* acc = nullptr;
  int64_t stride = 0;  // panels per row of acc
};

// acc[r] += x[r] * w for R rows of one panel; neighbouring rows lie P accumulators apart.
template <class V, int R, int P>
SLUICE_SIMD_INLINE void add_products(const float* x, typename V::F w, typename V::F* acc) {
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) acc[r * P] = V::fma(V::set1(x[r]), w, acc[r * P]);
}

// The products of k = 2 j, or 2 j + 1, of a step with R rows at x. With many registers row by row,
// so that one broadcast is alive at a time: panel by panel GCC 12 keeps all R of them for the next
// panel and, at 12 x 2, spills half of the accumulators. With few, the weights of all panels are
// what is too many.
template <class V, int R, int P, bool odd, class Reader>
SLUICE_SIMD_INLINE void add_step(const float* x, const Reader* reader, const std::byte* step,
                                 size_t panel_bytes, int64_t j, typename V::F* acc) {
  typename V::F w[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    const std::byte* weights = step + p * panel_bytes;
    w[p] = odd ? reader[p].odd(weights, j) : reader[p].even(weights, j);
    if constexpr (V::kRegisters < 32) add_products<V, R, P>(x, w[p], acc + p);
  }
  if constexpr (V::kRegisters < 32) return;
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    const auto b = V::set1(x[r]);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) acc[r * P + p] = V::fma(b, w[p], acc[r * P + p]);
  }
}

template <class V, int R, int P>
SLUICE_SIMD_INLINE void store_tile(const TileShape& t, const typename V::F* acc) {
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) V::store(t.acc + (r * t.stride + p) * 16, acc[r * P + p]);
}

// Starts a step of all P panels and asks for the weights of a later one.
template <class V, int P, class Reader>
SLUICE_SIMD_INLINE void begin_step(const std::byte* step, int64_t k, size_t panel_bytes,
                                   Reader* reader) {
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    if constexpr (requires { reader->begin(step, k); })
      reader[p].begin(step + p * panel_bytes, k);
    else
      reader[p].begin(step + p * panel_bytes);
    for (int64_t line = 0; line < Reader::kStepBytes; line += 64)
      V::prefetch(step + p * panel_bytes + line + kPrefetchBytes / P);
  }
}

template <class V, WeightFormat format, int R, int P>
void tile_bf16(const TileShape& t) {
  using F = typename V::F;
  using Reader = typename ReaderOf<V, format, Arith::kBf16Tile>::type;
  F acc[R * P];
#pragma GCC unroll 24
  for (int i = 0; i < R * P; ++i) acc[i] = V::zero();
  const float* x = t.x;
  for (int64_t k = 0; k < t.k; k += kStepK, x += kStepK * R) {
    const std::byte* step = step_at<Reader>(t.panel, k);
    F e[R * P], o[R * P];
    Reader reader[P];
#pragma GCC unroll 24
    for (int i = 0; i < R * P; ++i) e[i] = o[i] = V::zero();
    begin_step<V, P>(step, k, t.panel_bytes, reader);
#pragma GCC unroll 4
    for (int64_t j = 0; j < kStepK / 2; ++j) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const std::byte* weights = step + p * t.panel_bytes;
        add_products<V, R, P>(x + 2 * j * R, reader[p].even(weights, j), e + p);
        add_products<V, R, P>(x + (2 * j + 1) * R, reader[p].odd(weights, j), o + p);
      }
    }
#pragma GCC unroll 24
    for (int i = 0; i < R * P; ++i) acc[i] = V::add(acc[i], V::add(e[i], o[i]));
  }
  store_tile<V, R, P>(t, acc);
}

// The products of a step of bf16_dot with R rows at x.
template <class V, int R, int P, class Reader>
SLUICE_SIMD_INLINE void add_dots(const float* x, const std::byte* step, size_t panel_bytes,
                                 const Reader* reader, typename V::F* acc) {
#pragma GCC unroll 4
  for (int64_t j = 0; j < kStepK / 2; ++j) {
    if constexpr (DotsBf16<V>) {
      typename V::I w[P];
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) w[p] = reader[p].pair(step + p * panel_bytes, j);
      const float* pairs = x + j * R;
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const auto pair = V::bits_of(V::set1(pairs[r]));
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) acc[r * P + p] = V::dot_bf16(acc[r * P + p], pair, w[p]);
      }
    } else {
      add_step<V, R, P, true>(x + (2 * j + 1) * R, reader, step, panel_bytes, j, acc);
      add_step<V, R, P, false>(x + 2 * j * R, reader, step, panel_bytes, j, acc);
    }
  }
}

template <class V, WeightFormat format, int R, int P>
void tile_bf16_dot(const TileShape& t) {
  using Reader = typename ReaderOf<V, format, Arith::kBf16Tile>::type;
  typename V::F acc[R * P];
#pragma GCC unroll 24
  for (int i = 0; i < R * P; ++i) acc[i] = V::zero();
  const float* x = t.x;
  const std::byte* step = t.panel;
  constexpr int64_t kStepFloats = (DotsBf16<V> ? kStepK / 2 : kStepK) * R;
  for (int64_t k = 0; k < t.k; k += kStepK, x += kStepFloats, step += Reader::kStepBytes) {
    Reader reader[P];
    begin_step<V, P>(step, k, t.panel_bytes, reader);
    add_dots<V, R, P>(x, step, t.panel_bytes, reader, acc);
  }
  store_tile<V, R, P>(t, acc);
}

template <class V, WeightFormat format, int R, int P>
void tile_f32(const TileShape& t) {
  using F = typename V::F;
  using Reader = typename ReaderOf<V, format, Arith::kF32Fma>::type;
  F acc[R * P];
#pragma GCC unroll 24
  for (int i = 0; i < R * P; ++i) acc[i] = V::zero();
  const float* x = t.x;
  for (int64_t k = 0; k < t.k; k += kStepK, x += kStepK * R) {
    const std::byte* step = step_at<Reader>(t.panel, k);
    Reader reader[P];
    begin_step<V, P>(step, k, t.panel_bytes, reader);
    // Nothing past K takes part: 0 * 0 would turn a sum of -0 into +0.
    const int64_t left = t.k - k < kStepK ? t.k - k : kStepK;
#pragma GCC unroll 4
    for (int64_t j = 0; j < left / 2; ++j) {
      add_step<V, R, P, false>(x + 2 * j * R, reader, step, t.panel_bytes, j, acc);
      add_step<V, R, P, true>(x + (2 * j + 1) * R, reader, step, t.panel_bytes, j, acc);
    }
    if (left % 2 == 0) continue;
    add_step<V, R, P, false>(x + (left - 1) * R, reader, step, t.panel_bytes, left / 2, acc);
  }
  store_tile<V, R, P>(t, acc);
}

// The next `panels` panels, P at a time and what is left by halves.
template <class V, WeightFormat format, Arith arith, int R, int P>
void tiles(TileShape& t, int64_t panels) {
  for (; panels >= P; panels -= P, t.panel += P * t.panel_bytes, t.acc += P * 16) {
    if constexpr (arith == Arith::kBf16Tile)
      tile_bf16<V, format, R, P>(t);
    else if constexpr (arith == Arith::kBf16Dot)
      tile_bf16_dot<V, format, R, P>(t);
    else
      tile_f32<V, format, R, P>(t);
  }
  if constexpr (P > 1) {
    if (panels > 0) tiles<V, format, arith, R, P / 2>(t, panels);
  }
}

// One block of R rows times all panels of the product.
template <class V, WeightFormat format, Arith arith, int R>
void multiply_block(const PanelProduct& product, int64_t row, const float* x) {
  if constexpr (R <= Blocking<V, arith>::kMaxRows) {
    constexpr int P = Blocking<V, arith>::panels(R, format);
    constexpr int64_t group = P < 2 ? 2 : P;  // gate and up reach the epilogue together
    alignas(64) float acc[R * group * 16];
    for (int64_t p0 = product.panel_begin; p0 < product.panel_end; p0 += group) {
      const int64_t panels = product.panel_end - p0 < group ? product.panel_end - p0 : group;
      TileShape t{x,
                  product.panels + static_cast<size_t>(p0) * product.panel_bytes,
                  product.panel_bytes,
                  product.k,
                  acc,
                  panels};
      tiles<V, format, arith, R, P>(t, panels);
      product.epilogue({&product, acc, row, R, p0, panels});
    }
  }
}

template <int... R, class Call>
SLUICE_SIMD_INLINE void call_with(int64_t value, const Call& call) {
  static_cast<void>(((value == R ? (call.template operator()<R>(), true) : false) || ...));
}

// block.operator()<R>(row, x) for each block of R rows: its first row, and where it is prepared.
template <class V, Arith arith, class Block>
SLUICE_SIMD_INLINE void for_row_blocks(const PanelProduct& product, const Block& block) {
  const int64_t padded_k = (product.k + kStepK - 1) / kStepK * kStepK;
  int64_t rows = 0;
  for (int64_t row = 0; row < product.row_count; row += rows) {
    rows = Blocking<V, arith>::next_rows(product.row_count - row);
    const float* x = product.prepared + row * padded_k;
    call_with<1, 2, 3, 4, 6, 8, 12>(rows, [&]<int R>() { block.template operator()<R>(row, x); });
  }
}

template <class V, WeightFormat format, Arith arith>
void multiply(const PanelProduct& product) {
  for_row_blocks<V, arith>(product, [&]<int R>(int64_t row, const float* x) {
    multiply_block<V, format, arith, R>(product, row, x);
  });
}

// 16 values of one row from k on, zeros past K.
template <class V, Arith arith>
typename V::F prepared_values(const float* x, int64_t k, int64_t end) {
  const auto v = k + 16 <= end ? V::load(x + k) : V::load_n(x + k, end - k);
  constexpr bool kRounds = rounds_x(arith);
  return kRounds ? rounded_to_bf16<V>(v) : v;
}

// 16 values of row r of a block of `rows`, from k on, as bf16 pairs.
template <class V>
void store_pairs(float* block, int64_t rows, int64_t r, int64_t k, typename V::F v) {
  alignas(4) uint16_t lane[16];
  V::store_bf16(lane, v);
  for (int64_t i = 0; i < 8; ++i)
    __builtin_memcpy(block + (k / 2 + i) * rows + r, lane + 2 * i, sizeof(float));
}

template <class V, Arith arith>
void prepare(const PanelProduct& product, int64_t begin, int64_t end) {
  const int64_t padded_k = (product.k + kStepK - 1) / kStepK * kStepK;
  int64_t rows = 0;
  for (int64_t row = begin; row < end; row += rows) {
    rows = Blocking<V, arith>::next_rows(end - row);
    float* out = product.prepared + row * padded_k;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = product.rows != nullptr ? product.rows[row + r] : row + r;
      const float* x = product.x + at * product.x_stride;
      for (int64_t k = 0; k < padded_k; k += 16) {
        const auto v = prepared_values<V, arith>(x, k, product.k);
        if constexpr (kPairs<V, arith>) {
          store_pairs<V>(out, rows, r, k, v);
          continue;
        }
        if (rows == 1) {
          V::store(out + k, v);
          continue;
        }
        float lane[16];
        V::store(lane, v);
        for (int64_t i = 0; i < 16; ++i) out[(k + i) * rows + r] = lane[i];
      }
    }
  }
}

template <class V>
void store(const PanelTile& tile) {
  const PanelProduct& product = *tile.product;
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t p = 0; p < tile.panels; ++p) {
      const PanelColumns columns = panel_columns(product, tile.panel + p);
      auto v = V::load(tile.acc + (r * tile.panels + p) * 16);
      if (product.bias != nullptr)
        v = V::add(v, V::load_n(product.bias + columns.first, columns.count));
      float* out = product.out + (tile.row + r) * product.out_stride + columns.first;
      if (product.out_streams && columns.count == 16 && reinterpret_cast<uintptr_t>(out) % 64 == 0)
        V::stream(out, v);
      else
        V::store_n(out, v, columns.count);
    }
}

template <class V, WeightFormat format, Arith arith>
inline constexpr PanelKernel kPanelKernel = {prepare<V, arith>, multiply<V, format, arith>,
                                             store<V>};

}  // namespace sluice::simd
