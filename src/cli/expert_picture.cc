#include "cli/expert_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sluice {
namespace {

// Cold to hot in the 256-colour palette.
constexpr int kHeat[] = {238, 24, 31, 37, 71, 142, 178, 208, 202, 196};
constexpr const char* kBlocks[] = {"▁", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█", "█"};

std::string cell(double part, bool colour) {
  const int level = std::clamp(static_cast<int>(std::lround(part * 9)), 0, 9);
  if (!colour) return std::to_string(level);
  return fmt::format("\x1b[38;5;{}m{}", kHeat[level], kBlocks[level]);
}

// 1 / (E * sum of squared shares): how many experts' worth of load is really spread, as part of E.
double balance(const std::vector<int64_t>& counts, double total) {
  double squares = 0;
  for (const int64_t c : counts)
    squares += (static_cast<double>(c) / total) * (static_cast<double>(c) / total);
  return 1.0 / (static_cast<double>(counts.size()) * squares);
}

std::string draw_layer(size_t layer, const std::vector<int64_t>& counts, bool colour, int width) {
  const auto experts = static_cast<int64_t>(counts.size());
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  if (total == 0) return fmt::format("  layer {:3}  (no tokens)\n", layer);
  const int64_t cells = std::min<int64_t>(experts, width);
  std::vector<int64_t> load(static_cast<size_t>(cells));
  for (int64_t e = 0; e < experts; ++e)
    load[static_cast<size_t>(e * cells / experts)] += counts[static_cast<size_t>(e)];
  const auto most = static_cast<double>(*std::max_element(load.begin(), load.end()));
  std::string row = fmt::format("  layer {:3}  ", layer);
  for (const int64_t l : load) row += cell(static_cast<double>(l) / most, colour);
  if (colour) row += "\x1b[0m";
  const auto top = std::max_element(counts.begin(), counts.end());
  return row + fmt::format("  busiest {:3} {:4.1f} %, balance {:.2f}\n", top - counts.begin(),
                           100.0 * static_cast<double>(*top) / total, balance(counts, total));
}

}  // namespace

std::string draw_expert_load(const std::vector<std::vector<int64_t>>& counts, bool colour,
                             int width) {
  std::string out;
  for (size_t layer = 0; layer < counts.size(); ++layer)
    if (!counts[layer].empty()) out += draw_layer(layer, counts[layer], colour, width);
  if (out.empty()) return "this model has no experts\n";
  return "expert load, experts from left to right, each row relative to its busiest:\n" + out;
}

}  // namespace sluice
