#include "ops/embed/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void embed_f32_avx2(const EmbedRows& rows) {
  simd::embed_rows<simd::Avx2>(rows);
}

}  // namespace sluice
