// Packing of weight matrices into the panels that matmul and grouped_matmul stream
// (weights/packed.h describes the layouts). Done at load, never in a step.
#pragma once

#include <memory>
#include <span>

#include "base/status.h"
#include "device/device.h"
#include "ops/matmul/quantize_int.h"
#include "tensor/dtype.h"
#include "weights/packed.h"

namespace sluice {

// A matrix as stored: element (n, k) of dtype f32, f16, bf16, fp8 at data + offset(n, k), where
// offset = (n * stride_n + k * stride_k) * element size. Any alignment. `scale` multiplies fp8
// values: block (n / scale_block_n, k / scale_block_k) of a row-major f32 array with scale_cols
// columns; null = 1.
struct StoredMatrix {
  DType dtype = DType::kF32;
  const std::byte* data = nullptr;
  int64_t n = 0, k = 0;
  int64_t stride_n = 0, stride_k = 1;
  const float* scale = nullptr;
  int64_t scale_block_n = 1, scale_block_k = 1, scale_cols = 0;
};
// f32 rows [N, K] that follow each other.
inline StoredMatrix stored_rows(const void* w, int64_t n, int64_t k) {
  return {.data = static_cast<const std::byte*>(w), .n = n, .k = k, .stride_n = k};
}
// MXFP4 as gpt-oss stores it: blocks [N, K/32, 16] bytes (low nibble = even k), scales [N, K/32].
// Row n is the (n * row_step)th of both.
struct StoredMxfp4 {
  const std::byte* blocks = nullptr;
  const std::byte* scales = nullptr;
  int64_t n = 0, k = 0;
  int64_t row_step = 1;
};

// A matrix in one of GGUF's block formats as it is stored: rows of k weights follow each other, k a
// multiple of the format's block (32, or 256 for those with superblocks). Any alignment.
struct StoredBlocks {
  WeightFormat format = WeightFormat::kQ8_0;
  const std::byte* data = nullptr;
  int64_t n = 0, k = 0;
};

// How the codes of int4, int8, MXFP4 and GGUF's formats are chosen; they do not depend on the pool.
struct IntPacking {
  int64_t block = kIntBlock;  // int4, int8: k per scale, 128, 256 or 512
  IntRounding rounding = IntRounding::kSearch;
  ThreadPool* pool = nullptr;  // quantises panels in parallel
};

// Packs a stored matrix as kPanel16 in format f32, bf16, fp8 (ops/matmul/pack_fp8.h), int4, int8,
// MXFP4 (ops/matmul/quantize_mxfp4.h; K a multiple of 32) or one of GGUF's
// (ops/matmul/quantize_gguf.h says how codes are chosen). Every other row, a transposed matrix or a
// slice is a matter of strides. Rounding to bf16 is to nearest even; widening to f32 is exact; the
// formats that choose codes refuse NaN and infinity.
Result<PackedMatrix> pack_matrix(Device& device, const StoredMatrix& w, WeightFormat format,
                                 const IntPacking& how = {});
// The same into packed_bytes(format, kPanel16, N, K, block) zero-filled bytes at `out`: whole
// panels follow each other, so 16 i rows of a larger matrix are the bytes of panels i .. of its
// packed form.
Status pack_matrix_into(const StoredMatrix& w, WeightFormat format, std::byte* out,
                        const IntPacking& how = {});
// gate and up [I, K] each -> kGluPanel16 with n = 2 I.
Result<PackedMatrix> pack_glu(Device& device, const StoredMatrix& gate, const StoredMatrix& up,
                              WeightFormat format, const IntPacking& how = {});
// Codes and scales as they are; a scale that is NaN is refused.
Result<PackedMatrix> pack_mxfp4(Device& device, const StoredMxfp4& w);
// gate and up [I, K] each -> kGluPanel16 with n = 2 I.
Result<PackedMatrix> pack_mxfp4_glu(Device& device, const StoredMxfp4& gate, const StoredMxfp4& up);
// gate_up [2 I, K] interleaved as gpt-oss has it (even rows gate, odd rows up) -> kGluPanel16.
Result<PackedMatrix> pack_mxfp4_glu_interleaved(Device& device, const StoredMxfp4& gate_up);

// GGUF's blocks, bit for bit: kPanel16, and gate and up [I, K] each -> kGluPanel16 with n = 2 I.
Result<PackedMatrix> pack_stored_blocks(Device& device, const StoredBlocks& w);
Result<PackedMatrix> pack_stored_blocks_glu(Device& device, const StoredBlocks& gate,
                                            const StoredBlocks& up);

// Element (n, k) of a packed matrix, widened exactly (int formats: scale times integer, rounded
// once; formats with a minimum: fma(scale, integer, -minimum)): the definition that tests compare
// with.
float packed_element(const PackedMatrix& w, int64_t n, int64_t k);
// The same for all of a panel (kPanel16, kGluPanel16): out [K][16], padded columns included.
void unpack_panel(const PackedMatrix& w, int64_t panel, float* out);

}  // namespace sluice
