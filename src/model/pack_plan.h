// What pack_store will write: one item per entry of the store, in the order of the tensor table.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/pack_store.h"

namespace sluice {

struct PackItem {
  const ResolvedRule* rule = nullptr;
  int64_t expert = 0;
  // Of a vector, its values; reads mapped files. Null for matrices.
  std::function<std::vector<float>()> values;
  // Whether packing loses anything, and the format that would not.
  bool lossy = false;
  WeightFormat exact = WeightFormat::kF32;

  // Whether the rows of a matrix are to be packed piece by piece.
  bool sliced(size_t from_bytes, const StoreEntry& entry) const;
  // For messages: file and tensor.
  std::string where() const;
};
struct PackPlan {
  StoreHeader header;  // entries only, and the computes that they fit
  std::vector<PackItem> items;
};
Result<PackPlan> plan_store(const ModelSpec& spec, const Resolution& resolution,
                            const PackOptions& options);

}  // namespace sluice
