// Tiles: eight registers of up to 16 rows x 64 bytes, and the products of AMX-BF16 and AMX-INT8, as
// a vocabulary with two implementations behind one interface. `AmxTiles` is the hardware,
// `EmulatedTiles` plain C++ that repeats it bit for bit, so that a kernel written as a template
// over the vocabulary is tested on machines that have no tiles. simd/amx_test.cc compares the two.
//
//   TileConfig config;                  // every tile's exact size
//   config.set(0, rows, 64);
//   Tiles tiles(config);                // loads the configuration; all tiles are zero
//   tiles.template load<1>(a, stride);  // rows at a, a + stride, ...; sizes by the configuration
//   tiles.template dp_bf16<0, 1, 2>();  // tile 0 += tile 1 x tile 2
//   tiles.template store<0>(c, stride);
//                                       // the destructor gives the state back
//
// A product's left operand has a row per row of the sum; its right operand a row per four bytes of
// k, holding those bytes of all columns side by side (weights/packed.h: a step of a panel is such a
// tile). Sizes must agree: sum [M, 4 N], left [M, 4 K], right [K, 4 N] (rows, bytes).
//
// dp_bf16: for each element, e = FMA chain over the even k from 0, o = over the odd k, ascending;
//   sum = sum + (e + o). Nearest even; subnormal inputs and results are zero. The hardware ignores
//   MXCSR; the emulation needs ScopedFloatEnv, as every kernel.
// dp_s8s8, dp_u8s8, dp_s8u8: 8-bit products summed exactly in 32 bits (wrapping); the letters name
//   the left operand, then the right one.
//
// Threads: tiles and their configuration belong to the thread. A Tiles object is made and destroyed
// inside one kernel call; nothing between the two may wait for other work or call another kernel.
// While tiles are configured each context switch saves up to 8 KiB, and an idle core cannot sleep
// deeply: hence the release. Reconfiguring (reset) zeroes every tile. Only where detect_isa() is
// kAmx: it asks the system for the process's permission.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sluice::simd {

// The memory format of LDTILECFG, palette 1.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};  // per row, up to 64
  uint8_t rows[16] = {};    // up to 16
  void set(int tile, int64_t tile_rows, int64_t row_bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    bytes[tile] = static_cast<uint16_t>(row_bytes);
  }
};
static_assert(sizeof(TileConfig) == 64);

#if defined(__x86_64__)
// Assembly instead of intrinsics: those of GCC 12 take tile numbers as text only, declare no memory
// that loads read, and let the stores that fill a TileConfig be deleted.
class AmxTiles {
 public:
  [[gnu::always_inline]] explicit AmxTiles(const TileConfig& config) { reset(config); }
  [[gnu::always_inline]] ~AmxTiles() { __asm__ volatile("tilerelease" ::: "memory"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
  [[gnu::always_inline]] void reset(const TileConfig& config) {
    __asm__ volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }

  template <int tile>
  [[gnu::always_inline]] void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(tile));
  }
  template <int tile>
  [[gnu::always_inline]] void load(const void* p, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(tile) : "memory");
  }
  // For data that is read once: does not displace the caches' contents where the machine can tell.
  template <int tile>
  [[gnu::always_inline]] void load_once(const void* p, int64_t stride) {
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  [[gnu::always_inline]] void store(void* p, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(tile) : "memory");
  }
  template <int sum, int left, int right>
  [[gnu::always_inline]] void dp_bf16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
  }
  template <int sum, int left, int right>
  [[gnu::always_inline]] void dp_s8s8() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
  }
  template <int sum, int left, int right>
  [[gnu::always_inline]] void dp_u8s8() {
    __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
  }
  template <int sum, int left, int right>
  [[gnu::always_inline]] void dp_s8u8() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
  }
};
#endif

class EmulatedTiles {
 public:
  explicit EmulatedTiles(const TileConfig& config) { reset(config); }
  EmulatedTiles(const EmulatedTiles&) = delete;
  EmulatedTiles& operator=(const EmulatedTiles&) = delete;
  void reset(const TileConfig& config) {
    config_ = config;
    std::memset(data_, 0, sizeof(data_));
  }

  template <int tile>
  void zero() {
    std::memset(data_[tile], 0, sizeof(data_[tile]));
  }
  template <int tile>
  void load(const void* p, int64_t stride) {
    zero<tile>();
    for (int64_t r = 0; r < config_.rows[tile]; ++r)
      std::memcpy(data_[tile][r], static_cast<const std::byte*>(p) + r * stride,
                  config_.bytes[tile]);
  }
  template <int tile>
  void load_once(const void* p, int64_t stride) {
    load<tile>(p, stride);
  }
  template <int tile>
  void store(void* p, int64_t stride) {
    for (int64_t r = 0; r < config_.rows[tile]; ++r)
      std::memcpy(static_cast<std::byte*>(p) + r * stride, data_[tile][r], config_.bytes[tile]);
  }

  template <int sum, int left, int right>
  void dp_bf16() {
    for_each<sum, float>([&](int r, int n, float* acc) {
      float e = 0, o = 0;
      for (int k = 0; k < config_.rows[right]; ++k) {
        e = std::fma(bf16<left>(r, 2 * k), bf16<right>(k, 2 * n), e);
        o = std::fma(bf16<left>(r, 2 * k + 1), bf16<right>(k, 2 * n + 1), o);
      }
      *acc = *acc + (e + o);
    });
  }
  template <int sum, int left, int right>
  void dp_s8s8() {
    dp_int<sum, left, right, int8_t, int8_t>();
  }
  template <int sum, int left, int right>
  void dp_u8s8() {
    dp_int<sum, left, right, uint8_t, int8_t>();
  }
  template <int sum, int left, int right>
  void dp_s8u8() {
    dp_int<sum, left, right, int8_t, uint8_t>();
  }

 private:
  template <class T>
  T read(int tile, int row, int index) const {
    T v;
    std::memcpy(&v, data_[tile][row] + index * static_cast<int>(sizeof(T)), sizeof(T));
    return v;
  }
  template <int tile>
  float bf16(int row, int index) const {
    const uint32_t bits = uint32_t{read<uint16_t>(tile, row, index)} << 16;
    float v;
    std::memcpy(&v, &bits, sizeof(v));
    return v;
  }
  template <int sum, class T, class Body>
  void for_each(const Body& body) {
    for (int r = 0; r < config_.rows[sum]; ++r)
      for (int n = 0; n < config_.bytes[sum] / 4; ++n) {
        T v = read<T>(sum, r, n);
        body(r, n, &v);
        std::memcpy(data_[sum][r] + 4 * n, &v, sizeof(v));
      }
  }
  template <int sum, int left, int right, class Left, class Right>
  void dp_int() {
    for_each<sum, uint32_t>([&](int r, int n, uint32_t* acc) {
      for (int k = 0; k < config_.rows[right]; ++k)
        for (int i = 0; i < 4; ++i)
          *acc += static_cast<uint32_t>(int32_t{read<Left>(left, r, 4 * k + i)} *
                                        int32_t{read<Right>(right, k, 4 * n + i)});
    });
  }

  TileConfig config_;
  std::byte data_[8][16][64] = {};
};

}  // namespace sluice::simd
