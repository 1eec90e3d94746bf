#include "ops/matmul/cuda_body.h"
#include "ops/matmul/cuda_int_body.h"
#include "ops/matmul/kernels.h"

namespace sluice {
namespace {

template <WeightFormat format, Arith arith>
void multiply(const GroupedProduct& product) {
  cuda::with_body<format, arith>(product, [&](const auto& body, size_t shared_bytes) {
    run_on_host(body.blocks(product), body, shared_bytes);
  });
}

template <WeightFormat format>
void multiply_int(const GroupedProduct& product) {
  const cuda::QuantizeRowsBody<format> rows{product};
  run_on_host(rows.blocks(product), rows);
  cuda::with_int_body<format>(product, [&](const auto& body, size_t shared_bytes) {
    run_on_host(body.blocks(product), body, shared_bytes);
  });
}

}  // namespace

using enum WeightFormat;
using enum Arith;
const PanelKernel matmul_f32_f32_cuda_host = {.launch = multiply<kF32, kF32Fma>};
const PanelKernel matmul_f32_bf16_cuda_host = {.launch = multiply<kBF16, kF32Fma>};
const PanelKernel matmul_f32_mxfp4_cuda_host = {.launch = multiply<kMXFP4, kF32Fma>};
const PanelKernel matmul_bf16_bf16_cuda_host = {.launch = multiply<kBF16, kBf16Tile>};
const PanelKernel matmul_bf16_mxfp4_cuda_host = {.launch = multiply<kMXFP4, kBf16Tile>};
const PanelKernel matmul_int8_int4_cuda_host = {.launch = multiply_int<kInt4>};
const PanelKernel matmul_int16_int8_cuda_host = {.launch = multiply_int<kInt8>};

}  // namespace sluice
