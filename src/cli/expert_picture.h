// Expert load per layer as a picture for the terminal.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

// One row per layer that has experts, one cell per expert (several experts share a cell when there
// are more than `width`): the height of a block, or a digit 0-9 in plain text, is the load as a
// part of the layer's busiest cell. Each row ends with the busiest expert, its share, and the
// balance (1 = all experts alike, 1/E = one does it all). `counts`: pairs per (layer, expert).
std::string draw_expert_load(const std::vector<std::vector<int64_t>>& counts, bool colour,
                             int width = 64);

}  // namespace sluice
