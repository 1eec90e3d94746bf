// kv_write: new keys and values into the paged cache, before attention reads them.
//
//   cache[slot[t]] = k[t], v[t], rounded once to the cache's dtype (nearest even)
// tensor | shape    | dtype     | layout
// k, v   | [T, G*C] | f32       | row stride
// slots  | [T]      | i32       | block * 16 + token in block; distinct; negative = padding row
// cache  | paged    | f32, bf16 | kv_cache.h
// Errors: a slot beyond the pool, where the host can read them; shapes that disagree.
#pragma once

#include <span>

#include "device/device.h"
#include "ops/kv_write/kv_cache.h"
#include "tensor/view.h"

namespace sluice {

struct KvWriteArgs {
  ConstMatrixF32 k, v;
  std::span<const int32_t> slots;
  KvCacheView cache;
};
Status kv_write(const ExecContext& context, const KvWriteArgs& args);

}  // namespace sluice
