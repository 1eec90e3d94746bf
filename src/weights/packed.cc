#include "weights/packed.h"

#include "weights/block_panels.h"
#include "weights/fp8_panels.h"
#include "weights/int_panels.h"

namespace sluice {

std::string_view weight_format_name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBF16:
      return "bf16";
    case WeightFormat::kMXFP4:
      return "mxfp4";
    case WeightFormat::kF16:
      return "f16";
    case WeightFormat::kInt4:
      return "int4";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kFP8:
      return "fp8";
    case WeightFormat::kQ8_0:
      return "q8_0";
    case WeightFormat::kQ4_0:
      return "q4_0";
    case WeightFormat::kQ5_0:
      return "q5_0";
    case WeightFormat::kQ5_1:
      return "q5_1";
    case WeightFormat::kQ4_K:
      return "q4_k";
    case WeightFormat::kQ5_K:
      return "q5_k";
    case WeightFormat::kQ6_K:
      return "q6_k";
    case WeightFormat::kIQ4_NL:
      return "iq4_nl";
  }
  return "unknown";
}

std::optional<WeightFormat> weight_format_from_name(std::string_view name) {
  for (int i = 0; i < kWeightFormats; ++i)
    if (weight_format_name(static_cast<WeightFormat>(i)) == name)
      return static_cast<WeightFormat>(i);
  return std::nullopt;
}

std::string_view weight_layout_name(WeightLayout layout) {
  switch (layout) {
    case WeightLayout::kPanel16:
      return "panel16";
    case WeightLayout::kGluPanel16:
      return "glu_panel16";
    case WeightLayout::kRowMajor:
      return "row_major";
  }
  return "unknown";
}

size_t panel_bytes(WeightFormat format, int64_t k, int64_t block) {
  switch (format) {
    case WeightFormat::kF32:
      return static_cast<size_t>(k) * kPanelColumns * 4;
    case WeightFormat::kBF16:
      return static_cast<size_t>(round_up(k, 32)) * kPanelColumns * 2;
    case WeightFormat::kMXFP4:
      return static_cast<size_t>(ceil_div(k, 32)) * kPanelColumns * 17;
    case WeightFormat::kF16:
      return 0;  // row-major only
    case WeightFormat::kInt4:
      return static_cast<size_t>(int4_panel_bytes(k, block));
    case WeightFormat::kInt8:
      return static_cast<size_t>(int8_panel_bytes(k, block));
    case WeightFormat::kFP8:
      return static_cast<size_t>(fp8_panel_bytes(k));
    default:
      return static_cast<size_t>(block_panel_bytes(block_traits(format), k));
  }
}

size_t packed_bytes(WeightFormat format, WeightLayout layout, int64_t n, int64_t k, int64_t block) {
  if (layout == WeightLayout::kRowMajor)
    return static_cast<size_t>(n) * static_cast<size_t>(k) * (format == WeightFormat::kF32 ? 4 : 2);
  PackedMatrix shape;
  shape.layout = layout;
  shape.n = n;
  return static_cast<size_t>(shape.panels()) * panel_bytes(format, k, block);
}

}  // namespace sluice
