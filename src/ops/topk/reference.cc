#include "ops/topk/select.h"

namespace sluice {
namespace {

int64_t scan(const float* x, int64_t begin, int64_t end, TopkBuffer& buffer) {
  int64_t i = begin;
  for (; i < end && buffer.capacity - buffer.count >= kTopkRoom; ++i) {
    const uint64_t key = topk_key<void>(x[i], i);
    if (key > buffer.floor) buffer.keys[buffer.count++] = key;
  }
  return i;
}

}  // namespace

void topk_f32_reference(const TopkRows& rows) {
  select_topk(scan, rows);
}

}  // namespace sluice
