#include "ops/topk/kernels.h"

namespace sluice {

int64_t topk_f32_reference(const float* x, int64_t begin, int64_t end, TopkBuffer& buffer) {
  int64_t i = begin;
  for (; i < end && buffer.capacity - buffer.count >= kTopkRoom; ++i) {
    const uint64_t key = topk_key<void>(x[i], i);
    if (key > buffer.floor) buffer.keys[buffer.count++] = key;
  }
  return i;
}

}  // namespace sluice
