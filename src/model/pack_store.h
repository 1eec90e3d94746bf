// pack_store: a model's directory becomes a packed store (weights/store_format.h).
//
// What goes where is the tensor table's business, as for load_model: every matrix in the panels
// that the loader would make, one entry each (one per expert), every vector in f32. The router and
// the norms are never quantised. What V is computed from keeps its unquantised format: that small
// product reaches the residual stream, which the router reads, linearly.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "model/model.h"
#include "model/tensor_table.h"
#include "weights/store.h"

namespace sluice {

// What a user may ask for: any format but f16. kF32 and kBF16: as load_model would pack for that
// compute mode (bf16 and MXFP4 weights stay what they are). Another name is refused in a sentence.
Result<WeightFormat> store_format_from_name(const std::string& name);

struct PackOptions {
  WeightFormat weights = WeightFormat::kBF16;  // of the experts
  // Of attention and dense feed-forward, and of the head. Unset: int8 beside 4- and 8-bit weights,
  // else as the experts.
  std::optional<WeightFormat> dense, head;
  int64_t group = kIntBlock;  // int4, int8: k per scale
  bool nearest = false;       // formats of chosen scales: no search for those of the least error
  // Called with bytes done and in all from the calling thread; returning false cancels.
  std::function<bool(uint64_t done, uint64_t total)> progress;

  WeightFormat dense_or_default() const;
  WeightFormat head_or_default() const;
  // The command's options, without defaults: "--weights int4 --group 256".
  std::string text() const;
};

struct PackReport {
  StoreHeader header;  // errors per tensor included
  size_t resumed = 0;  // tensors that an earlier, interrupted pack had written
  double seconds = 0;
};
Result<PackReport> pack_store(Runtime& runtime, const std::string& model_dir,
                              const std::string& store, const PackOptions& options);

// The entry of a rule's weight (of one expert).
std::string store_name(const TensorRule& rule, int64_t expert);
// A head of its own although the embedding is tied to it: quantised, while the embedding is not.
inline constexpr std::string_view kTiedHeadName = "lm_head.weight";

// load_model's way for a packed store: matrices are pointers into the mapped file, on a device
// copies. Touches no matrix; the model's source is the PackedStore (on a device, null).
Result<std::unique_ptr<Model>> load_packed_store(Runtime& runtime, const std::string& path,
                                                 const LoadOptions& options);

}  // namespace sluice
