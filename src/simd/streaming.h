// The end of stores that went around the caches (V::stream): what other threads are told of next
// is told after them.
#pragma once

namespace sluice {

static inline void streamed_stores_end() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

}  // namespace sluice
