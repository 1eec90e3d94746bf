#include "model/pack_loss.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/fp.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/stored_blocks.h"

namespace sluice {
namespace {

constexpr int64_t kGroup = 32;

// One group of 32 as stored in GGUF: d in f16, then codes.
void decode_group(WeightFormat format, const std::byte* group, double* out) {
  uint16_t bits = 0;
  std::memcpy(&bits, group, sizeof(bits));
  const double d = f16_to_f32(bits);
  const auto* codes = reinterpret_cast<const uint8_t*>(group + sizeof(bits));
  for (int64_t j = 0; j < kGroup; ++j) {
    if (format == WeightFormat::kQ8_0)
      out[j] = d * static_cast<int8_t>(codes[j]);
    else
      out[j] = d * ((j < 16 ? codes[j] & 15 : codes[j - 16] >> 4) - 8);
  }
}

// The squared error of a column, or nothing where a scale overflows.
std::optional<double> column_error(WeightFormat format, const std::vector<float>& column,
                                   std::vector<std::byte>& stored) {
  const auto groups = static_cast<int64_t>(column.size()) / kGroup;
  const size_t bytes = stored_row_bytes(format, kGroup);
  stored.resize(bytes * static_cast<size_t>(groups));
  if (!quantize_blocks(format, column.data(), groups, stored.data()).ok()) return std::nullopt;
  double error = 0, values[kGroup];
  for (int64_t g = 0; g < groups; ++g) {
    decode_group(format, stored.data() + static_cast<size_t>(g) * bytes, values);
    for (int64_t j = 0; j < kGroup; ++j) {
      const double d = values[j] - column[static_cast<size_t>(g * kGroup + j)];
      error += d * d;
    }
  }
  return error;
}

// Columns of one panel, [k][16].
class PanelLoss {
 public:
  PanelLoss(int64_t k, std::optional<WeightFormat> beside)
      : k_(k), beside_(beside), column_(static_cast<size_t>(ceil_div(k, kGroup) * kGroup)) {}

  void add(const float* ours, const float* theirs, int64_t columns) {
    double error[kPanelColumns] = {}, signal[kPanelColumns] = {};
    for (int64_t k = 0; k < k_; ++k) {
      for (int64_t c = 0; c < columns; ++c) {
        const double r = theirs[k * kPanelColumns + c];
        const double d = static_cast<double>(ours[k * kPanelColumns + c]) - r;
        error[c] += d * d;
        signal[c] += r * r;
      }
    }
    for (int64_t c = 0; c < columns; ++c) {
      loss_.error += error[c];
      loss_.signal += signal[c];
      if (beside_) add_beside(theirs, c);
    }
  }
  PackLoss loss() const { return loss_; }

 private:
  void add_beside(const float* theirs, int64_t c) {
    for (int64_t k = 0; k < k_; ++k)
      column_[static_cast<size_t>(k)] = theirs[k * kPanelColumns + c];
    const std::optional<double> error = column_error(*beside_, column_, stored_);
    if (error)
      loss_.beside += *error;
    else
      overflowed_ = true;
    if (overflowed_) loss_.beside = 0;
  }

  int64_t k_;
  std::optional<WeightFormat> beside_;
  std::vector<float> column_;
  std::vector<std::byte> stored_;
  PackLoss loss_;
  bool overflowed_ = false;
};

}  // namespace

void PackLoss::add(const PackLoss& other) {
  error += other.error;
  signal += other.signal;
  beside += other.beside;
}

std::optional<WeightFormat> format_beside(WeightFormat format) {
  if (format == WeightFormat::kInt8) return WeightFormat::kQ8_0;
  if (format == WeightFormat::kInt4 || format == WeightFormat::kMXFP4 ||
      format == WeightFormat::kQ4_K || format == WeightFormat::kIQ4_NL)
    return WeightFormat::kQ4_0;
  return std::nullopt;
}

PackLoss pack_loss(const PackedMatrix& packed, const PackedMatrix& reference,
                   std::optional<WeightFormat> beside) {
  const auto values = static_cast<size_t>(packed.k * kPanelColumns);
  std::vector<float> ours(values), theirs(values);
  const bool glu = packed.layout == WeightLayout::kGluPanel16;
  const int64_t outputs = glu ? packed.n / 2 : packed.n;
  PanelLoss loss(packed.k, beside);
  for (int64_t p = 0; p < packed.panels(); ++p) {
    unpack_panel(packed, p, ours.data());
    unpack_panel(reference, p, theirs.data());
    loss.add(ours.data(), theirs.data(),
             std::min(outputs - (glu ? p / 2 : p) * kPanelColumns, kPanelColumns));
  }
  return loss.loss();
}

}  // namespace sluice
