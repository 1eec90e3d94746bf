// The reference's products read rows as they are: hidden rows are stored one after the other.
#include "ops/grouped_matmul/kernels.h"
#include "ops/moe_experts/kernels.h"

namespace sluice {

void moe_experts_f32_reference(const PanelTile& tile) {
  grouped_matmul_glu_reference(tile);
}

}  // namespace sluice
