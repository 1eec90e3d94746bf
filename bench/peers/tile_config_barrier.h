// Force-included (-include) into the peer's sources when `build` compiles them; none of them is
// changed. GCC 12's _tile_loadconfig tells the compiler that it reads 8 bytes of its 64-byte
// argument, so the stores that fill the rest are dropped as dead and the first tile instruction
// faults. Here the same instruction says that it reads memory.
#pragma once

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

static inline void sluice_tile_loadconfig(const void* config) {
  __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])config) : "memory");
}
#define _tile_loadconfig sluice_tile_loadconfig
#endif
