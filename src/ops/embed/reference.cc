#include "ops/embed/element.h"

namespace sluice {

void embed_f32_reference(const EmbedRows& a) {
  for (int64_t t = 0; t < a.rows; ++t)
    for (int64_t k = 0; k < a.d; ++k)
      a.out[t * a.out_stride + k] = embed_element(a, a.ids[t], k) * a.scale;
}

}  // namespace sluice
