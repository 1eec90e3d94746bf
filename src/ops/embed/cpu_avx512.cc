#include "ops/embed/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void embed_f32_avx512(const EmbedRows& rows) {
  simd::embed_rows<simd::Avx512>(rows);
}

}  // namespace sluice
