#include "model/mode.h"

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

Status check_mode(Mode mode, const std::set<WeightFormat>& formats, const std::string& path) {
  if (mode == Mode::kDefault) return ok_status();
  std::set<std::string_view> names;
  for (const WeightFormat f : formats) {
    if (has_mode(f, mode)) return ok_status();
    names.insert(weight_format_name(f));
  }
  return invalid_argument("{}: mode {} is for weights in {}; this model's are in {}", path,
                          mode_name(mode), formats_of(mode), fmt::join(names, ", "));
}

Status check_mode(const Model& model, const std::string& path) {
  std::set<WeightFormat> formats;
  const auto see = [&](const PackedMatrix& w) {
    if (!w.empty()) formats.insert(w.format);
  };
  see(model.head);
  for (const LayerWeights& l : model.layers) {
    for (const PackedMatrix* w : {&l.attention.q, &l.attention.k, &l.attention.v, &l.attention.o,
                                  &l.dense.gate_up, &l.dense.down})
      see(*w);
    for (const PackedMatrix& w : l.moe.gate_up) see(w);
    for (const PackedMatrix& w : l.moe.down) see(w);
  }
  return check_mode(model.mode, formats, path);
}

}  // namespace sluice
