// Packing of fp8 panels (weights/packed.h).
#pragma once

#include "ops/matmul/pack.h"

namespace sluice {

// Whether a matrix keeps its codes: stored as e4m3 with one scale for at least each column's every
// 128 k. Others are quantised: scale = amax / 448 of 128 k of a column (0 where that is below
// 2^-100), code = w / scale to nearest, ties to even.
bool keeps_fp8_codes(const StoredMatrix& m);

// Rows [first, first + count), at most 16, into one zero-filled panel. Refuses what is not finite,
// and kept scales whose magnitude leaves 2^-100 .. 2^100: no product may leave the normal numbers.
Status pack_fp8_panel(const StoredMatrix& m, int64_t first, int64_t count, std::byte* out);

// Element (k, c) of a panel: code times scale, rounded once.
float fp8_element(const std::byte* panel, int64_t c, int64_t k);

// k in [k0, k0 + count) of row n, widened and scaled (pack.cc).
void read_stored_row(const StoredMatrix& m, int64_t n, int64_t k0, int64_t count, float* out);

}  // namespace sluice
