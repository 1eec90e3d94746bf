// kv_write's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

namespace sluice {

class Stream;  // device/device.h

// Rows [0, rows) of one call, all heads. The pool is described as kv_cache.h lays it out.
struct KvWriteRows {
  const float* k = nullptr;
  int64_t k_stride = 0;
  const float* v = nullptr;
  int64_t v_stride = 0;
  const int32_t* slots = nullptr;
  int64_t rows = 0;
  void* cache = nullptr;
  int64_t kv_heads = 0, head_size = 0;
  Stream* stream = nullptr;  // CUDA only
};
using KvWriteKernel = void(const KvWriteRows&);

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) KvWriteKernel name;
#include "ops/kv_write/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<KvWriteKernel>> kv_write_kernels();

}  // namespace sluice
