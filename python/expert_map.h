// Which experts are here: all of a layer's, or those that a map or mask of them names.
#pragma once

#include "machine.h"
#include "ops/moe_sort/pairs.h"

namespace sluice::python {

// A map or mask of `experts` experts; none where `o` is None.
inline std::span<const int32_t> expert_map(const py::object& o, const char* name, int64_t experts) {
  if (o.is_none()) return {};
  const std::span<const int32_t> map = values<int32_t>(o.cast<py::array>(), name);
  if (std::ssize(map) != experts)
    throw py::value_error(
        fmt::format("{}: expected one value an expert, [{}], got [{}]", name, experts, map.size()));
  return map;
}

// So many can be sorted; asked before anything is allocated for each of them.
inline int64_t sortable_experts(int64_t experts, const char* name) {
  if (experts < 1 || experts > kSortMostExperts)
    throw py::value_error(
        fmt::format("{}: expected in [1, {}], got {}", name, kSortMostExperts, experts));
  return experts;
}
// Of all `experts`, or as many as the map numbers.
inline int64_t mapped_experts(std::span<const int32_t> map, int64_t experts, const char* name) {
  if (map.empty()) return sortable_experts(experts, name);
  int64_t most = -1;
  for (const int32_t m : map) most = m > most ? m : most;
  return sortable_experts(most + 1, "experts that expert_map numbers");
}

}  // namespace sluice::python
