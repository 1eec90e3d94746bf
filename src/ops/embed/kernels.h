// embed's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice {

class Stream;  // device/device.h

enum class EmbedForm { kRowF32, kRowF16, kRowBF16, kPanelF32, kPanelBF16 };

struct EmbedRows {
  EmbedForm form = EmbedForm::kRowF32;
  const std::byte* table = nullptr;
  size_t group_bytes = 0;  // of one row, or of one panel of 16 rows
  const int32_t* ids = nullptr;
  float* out = nullptr;
  int64_t out_stride = 0;
  int64_t rows = 0, d = 0;
  float scale = 1.0f;
  Stream* stream = nullptr;  // CUDA only
};
using EmbedKernel = void(const EmbedRows&);

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) EmbedKernel name;
#include "ops/embed/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<EmbedKernel>> embed_kernels();

}  // namespace sluice
