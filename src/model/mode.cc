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

// Every stored matrix whose product follows product_arith: all but the value projection, whose
// inputs are f32.
template <class See>
void for_each_product(const Model& model, See&& see) {
  const auto stored = [&](const PackedMatrix& w) {
    if (!w.empty()) see(w);
  };
  stored(model.head);
  for (const LayerWeights& l : model.layers) {
    for (const PackedMatrix* w :
         {&l.attention.q, &l.attention.k, &l.attention.o, &l.dense.gate_up, &l.dense.down})
      stored(*w);
    for (const PackedMatrix& w : l.moe.gate_up) stored(w);
    for (const PackedMatrix& w : l.moe.down) stored(w);
  }
}

constexpr bool has_bf16_dot(WeightFormat format) {
  return format == WeightFormat::kBF16 || format == WeightFormat::kMXFP4;
}

}  // namespace

Arith product_arith(WeightFormat format, Compute compute, Mode mode, bool bf16_dot) {
  const Arith arith = panel_arith(format, compute, mode);
  return bf16_dot && arith == Arith::kBf16Tile && has_bf16_dot(format) ? Arith::kBf16Dot : arith;
}

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

Status check_bf16_dot(Compute compute, Mode mode, const std::set<WeightFormat>& formats,
                      const std::string& path) {
  std::set<std::string_view> names;
  for (const WeightFormat f : formats) {
    if (product_arith(f, compute, mode, true) == Arith::kBf16Dot) return ok_status();
    names.insert(weight_format_name(f));
  }
  return invalid_argument(
      "{}: arith bf16_dot is for weights in bf16, mxfp4 and compute bf16; this model's are in {}, "
      "compute {}",
      path, fmt::join(names, ", "), compute_name(compute));
}

Status check_mode(const Model& model, const std::string& path) {
  std::set<WeightFormat> formats, values;  // rows of v's product are never rounded
  for_each_product(model, [&](const PackedMatrix& w) { formats.insert(w.format); });
  for (const LayerWeights& l : model.layers)
    if (!l.attention.v.empty()) values.insert(l.attention.v.format);
  if (model.bf16_dot)
    SLUICE_RETURN_IF_ERROR(check_bf16_dot(model.compute, model.mode, formats, path));
  formats.merge(values);
  return check_mode(model.mode, formats, path);
}

Status check_kernels(Isa isa, const Model& model, const std::string& path) {
  Status missing = ok_status();
  for_each_product(model, [&](const PackedMatrix& w) {
    const Arith arith = product_arith(w.format, model.compute, model.mode, model.bf16_dot);
    if (missing.ok() && select_panel_kernel(isa, w.format, arith) == nullptr)
      missing = unimplemented("{}: {} has no kernel of arith {} for {} weights", path,
                              isa_name(isa), arith_name(arith), weight_format_name(w.format));
  });
  return missing;
}

}  // namespace sluice
