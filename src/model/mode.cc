#include "model/mode.h"

#include <set>
#include <string>

#include "ops/matmul/panels.h"

namespace sluice {
namespace {

std::string formats_of(Mode mode) {
  std::string out;
  for (int i = 0; i < kWeightFormats; ++i)
    if (const auto format = static_cast<WeightFormat>(i); has_mode(format, mode))
      out += fmt::format("{}{}", out.empty() ? "" : ", ", weight_format_name(format));
  return out;
}

}  // namespace

Status check_mode(const Model& model, const std::string& path) {
  if (model.mode == Mode::kDefault) return ok_status();
  std::set<std::string_view> held;
  bool found = false;
  const auto see = [&](const PackedMatrix& w) {
    if (w.empty()) return;
    held.insert(weight_format_name(w.format));
    found = found || has_mode(w.format, model.mode);
  };
  see(model.head);
  for (const LayerWeights& l : model.layers) {
    for (const PackedMatrix* w : {&l.attention.q, &l.attention.k, &l.attention.v, &l.attention.o,
                                  &l.dense.gate_up, &l.dense.down})
      see(*w);
    for (const PackedMatrix& w : l.moe.gate_up) see(w);
    for (const PackedMatrix& w : l.moe.down) see(w);
  }
  if (found) return ok_status();
  return invalid_argument("{}: mode {} is for weights in {}; this model's are in {}", path,
                          mode_name(model.mode), formats_of(model.mode), fmt::join(held, ", "));
}

}  // namespace sluice
