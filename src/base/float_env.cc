#include "base/float_env.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace sluice {

#if defined(__SSE2__)
// All exceptions masked (0x1f80), flush-to-zero (0x8000), denormals-are-zero (0x0040), nearest
// even.
ScopedFloatEnv::ScopedFloatEnv() : saved_(_mm_getcsr()) {
  _mm_setcsr(0x1f80u | 0x8000u | 0x0040u);
}
ScopedFloatEnv::~ScopedFloatEnv() {
  _mm_setcsr(saved_);
}
#else
// Elsewhere subnormals are kept: results agree with x86 except where a subnormal takes part.
ScopedFloatEnv::ScopedFloatEnv() = default;
ScopedFloatEnv::~ScopedFloatEnv() = default;
#endif

}  // namespace sluice
