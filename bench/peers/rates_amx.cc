// The tile units on registers: four accumulators, so that the latency of one hides behind three.
#include <immintrin.h>

#include <cstdint>

namespace peers {

void tile_int8_rounds(int64_t rounds);
void tile_bf16_rounds(int64_t rounds);

namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

void configure() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.bytes_per_row[i] = 64, config.rows[i] = 16;
  // GCC 12's intrinsic declares a read of 8 bytes only and would let the stores above be dropped.
  __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
}

}  // namespace

void tile_int8_rounds(int64_t rounds) {
  configure();
  for (int64_t r = 0; r < rounds; ++r) {
    _tile_dpbssd(0, 4, 5);
    _tile_dpbssd(1, 4, 5);
    _tile_dpbssd(2, 4, 5);
    _tile_dpbssd(3, 4, 5);
  }
  _tile_release();
}

void tile_bf16_rounds(int64_t rounds) {
  configure();
  for (int64_t r = 0; r < rounds; ++r) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
}

}  // namespace peers
