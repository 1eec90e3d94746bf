// Arith fp8_g128: rows quantised by quantize_rows' kernels and multiplied by quant_matmul's, whose
// panels with groups of 128 k are the fp8 panels of weights/packed.h byte for byte. So both ways to
// multiply fp8 by fp8 are the same code, and what is here only leads the one to the other.
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/matmul/fp8_rows.h"
#include "ops/matmul/kernels.h"
#include "ops/quant_matmul/kernels.h"
#include "ops/quantize_rows/kernels.h"

namespace sluice {
namespace {

// Rows that share a pass over a pair of panels: as many as the tiles' kernel takes at once.
constexpr int64_t kPassRows = 128;

const int8_t* codes_of(const Fp8Rows& rows, int64_t r) {
  return reinterpret_cast<const int8_t*>(rows.data + r * rows.row_bytes + rows.codes_at);
}

template <QuantizeRowsKernel* quantize, const QuantKernel& kernel>
void prepare_fp8(const PanelProduct& product, int64_t begin, int64_t end) {
  const Fp8Rows rows = fp8_rows(product);
  for (int64_t r = begin; r < end; ++r) {
    QuantizeRowsTask task;
    task.rule = {QuantizeTo::kE4m3, ScaleType::kF32, std::numeric_limits<float>::infinity()};
    task.x = product.x + (product.rows != nullptr ? product.rows[r] : r) * product.x_stride;
    task.rows = 1;
    task.d = product.k;
    task.group = kFp8Block;
    task.codes = reinterpret_cast<uint8_t*>(rows.data + r * rows.row_bytes + rows.codes_at);
    task.scales = {rows.scales + r * rows.scales_each, 0, 1};
    quantize(task);
    for (int64_t g = 0; g < rows.groups; ++g)
      if (float& scale = task.scales.data[g]; std::isinf(scale)) scale = NAN;
    QuantProduct p;
    p.x = codes_of(rows, r);
    p.rows = 1;
    p.k = product.k;
    p.group = kFp8Block;
    p.prepared = rows.data + r * rows.row_bytes;
    kernel.prepare(p, 0, 1);
  }
}

// `bytes` of a k: what the kernel's prepare() makes of a code; 0: it leaves the codes.
template <int64_t bytes>
void gather_fp8(const PanelProduct& from, const PanelProduct& to, int64_t begin, int64_t end) {
  const Fp8Rows sources = fp8_rows(from), rows = fp8_rows(to);
  const int64_t at = bytes == 0 ? rows.codes_at : 0;
  const auto count =
      static_cast<size_t>(bytes == 0 ? rows.row_bytes - at : (to.k + 31) / 32 * 32 * bytes);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t source = to.rows != nullptr ? to.rows[r] : r;
    std::memcpy(rows.data + r * rows.row_bytes + at, sources.data + source * rows.row_bytes + at,
                count);
    std::memcpy(rows.scales + r * rows.scales_each, sources.scales + source * rows.scales_each,
                static_cast<size_t>(rows.groups) * sizeof(float));
  }
}

template <const QuantKernel& kernel>
void multiply_fp8(const PanelProduct& product) {
  const Fp8Rows rows = fp8_rows(product);
  alignas(64) float acc[kPassRows * 32];
  QuantProduct p;
  p.x_stride = rows.row_bytes;
  p.k = product.k;
  p.group = kFp8Block;
  p.panel_bytes = product.panel_bytes;
  p.out = acc;
  const int64_t passes = (product.row_count + kPassRows - 1) / kPassRows;
  const int64_t each = passes == 0 ? 1 : (product.row_count + passes - 1) / passes;
  for (int64_t row = 0; row < product.row_count; row += each) {
    p.rows = product.row_count - row < each ? product.row_count - row : each;
    p.x = codes_of(rows, row);
    p.prepared = rows.data + row * rows.row_bytes;
    p.x_scale = {rows.scales + row * rows.scales_each, rows.scales_each, 1};
    for (int64_t p0 = product.panel_begin; p0 < product.panel_end; p0 += 2) {
      const int64_t panels = product.panel_end - p0 < 2 ? 1 : 2;
      p.panels = product.panels + static_cast<size_t>(p0) * product.panel_bytes;
      p.panel_end = panels;
      p.n = p.out_stride = 16 * panels;
      kernel.multiply(p);
      product.epilogue({&product, acc, row, p.rows, p0, panels});
    }
  }
}

template <QuantizeRowsKernel* quantize, const QuantKernel& kernel, int64_t bytes>
PanelKernel fp8_kernel(PanelEpilogue* store) {
  return {prepare_fp8<quantize, kernel>,
          multiply_fp8<kernel>,
          store,
          gather_fp8<bytes>,
          nullptr,
          size_t{1} << 20,
          kPassRows};
}

}  // namespace

#if defined(SLUICE_X86)
const PanelKernel matmul_fp8_fp8_amx =
    fp8_kernel<quantize_rows_f32_avx512, quant_matmul_fp8_fp8_amx, 2>(matmul_bf16_fp8_amx.store);
const PanelKernel matmul_fp8_fp8_avx512 =
    fp8_kernel<quantize_rows_f32_avx512, quant_matmul_fp8_fp8_avx512, 4>(
        matmul_f32_fp8_avx512.store);
const PanelKernel matmul_fp8_fp8_avx2 =
    fp8_kernel<quantize_rows_f32_avx2, quant_matmul_fp8_fp8_avx2, 4>(matmul_f32_fp8_avx2.store);
#endif
const PanelKernel matmul_fp8_fp8_amx_emulated =
    fp8_kernel<quantize_rows_f32_reference, quant_matmul_fp8_fp8_amx_emulated, 2>(
        store_tile_reference);
const PanelKernel matmul_fp8_fp8_reference =
    fp8_kernel<quantize_rows_f32_reference, quant_matmul_fp8_fp8_reference, 0>(
        store_tile_reference);

}  // namespace sluice
