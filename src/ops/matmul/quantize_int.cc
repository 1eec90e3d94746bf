#include "ops/matmul/quantize_int.h"

#include <cmath>

#include "base/fp.h"

namespace sluice {
namespace {

constexpr int64_t kGroup = 32;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even
constexpr int kMostMultiplier = 15;
// A code reaches 8 on one side of zero and 7 on the other: the group's largest magnitude takes the
// side of 8.
constexpr float kReach = 8;

// The search, measured on Gaussian columns of 512: 20 scales between 0.8 and 1.05 of the one that
// spans the largest group give 21.65 dB; 40 scales, or both zero points for every group, no more
// than 0.01 dB beyond; scales up to 0.95 only, 0.04 dB less.
constexpr int kScales = 20;
constexpr float kLeastScale = 0.8f, kMostScale = 1.05f;
// Multipliers that are tried, around the one that just spans the group: clipping the largest weight
// pays down to about 0.72 of it.
constexpr float kLeastSpan = 0.72f, kMostSpan = 1.02f;

struct GroupRange {
  float largest = 0;  // magnitude
  int zero = 8;
};

GroupRange range_of(const float* w) {
  GroupRange r;
  for (int64_t i = 0; i < kGroup; ++i) {
    const float a = std::fabs(w[i]);
    if (a <= r.largest) continue;
    r.largest = a;
    r.zero = w[i] < 0 ? 8 : 7;
  }
  return r;
}

// Squared error of a group at the step; 16 partial sums, so that any compiler may use vectors.
float squared_error(const float* w, float step, int zero) {
  const float low = static_cast<float>(-zero), high = low + 15.0f, inverse = 1.0f / step;
  float partial[16] = {};
  for (int64_t i = 0; i < kGroup; i += 16)
    for (int64_t j = 0; j < 16; ++j) {
      float q = (w[i + j] * inverse + kRound) - kRound;
      q = q < low ? low : q;
      q = q > high ? high : q;
      const float e = w[i + j] - q * step;
      partial[j] += e * e;
    }
  for (int half = 8; half >= 1; half /= 2)
    for (int j = 0; j < half; ++j) partial[j] += partial[j + half];
  return partial[0];
}

int clamp_multiplier(float m) {
  return m < 1 ? 1 : m > kMostMultiplier ? kMostMultiplier : static_cast<int>(m);
}

struct Choice {
  float error = 0;
  int multiplier = 1;
};
Choice best_multiplier(const float* w, const GroupRange& range, float scale) {
  const float span = range.largest / (kReach * scale);
  const int last = clamp_multiplier(std::ceil(kMostSpan * span));
  Choice best;
  for (int m = clamp_multiplier(kLeastSpan * span), first = m; m <= last; ++m) {
    const float error = squared_error(w, static_cast<float>(m) * scale, range.zero);
    if (m == first || error < best.error) best = {error, m};
  }
  return best;
}

// Error of the column at a scale, with the multipliers that it wants; gives up beyond `limit`.
float choose_multipliers(const float* w, int64_t groups, const GroupRange* ranges, float scale,
                         float limit, uint8_t* multipliers) {
  float total = 0;
  for (int64_t g = 0; g < groups && total <= limit; ++g) {
    const Choice c = best_multiplier(w + g * kGroup, ranges[g], scale);
    total += c.error;
    multipliers[g] = static_cast<uint8_t>(c.multiplier);
  }
  return total;
}

void search_int4(const float* w, int64_t groups, const GroupRange* ranges, float largest,
                 Int4Column* out) {
  const float span = largest / (kReach * kMostMultiplier);
  float best = 0;
  for (int i = 0; i < kScales; ++i) {
    const float part = static_cast<float>(i) / static_cast<float>(kScales - 1);
    const float scale = round_to_bf16(span * (kMostScale - (kMostScale - kLeastScale) * part));
    uint8_t multipliers[kMostIntGroups];
    const float limit = i == 0 ? INFINITY : best;
    const float error = choose_multipliers(w, groups, ranges, scale, limit, multipliers);
    if (i > 0 && error >= best) continue;
    best = error;
    out->scale = scale;
    for (int64_t g = 0; g < groups; ++g) out->multiplier[g] = multipliers[g];
  }
}

// The scale that spans the largest group at multiplier 15, multipliers that span theirs.
void nearest_int4(int64_t groups, const GroupRange* ranges, float largest, Int4Column* out) {
  const float span = largest / (kReach * kMostMultiplier);
  float scale = round_to_bf16(span);
  if (scale < span) scale = bits_to_f32(f32_to_bits(scale) + 0x10000u);
  out->scale = scale;
  for (int64_t g = 0; g < groups; ++g)
    out->multiplier[g] =
        static_cast<uint8_t>(clamp_multiplier(std::ceil(ranges[g].largest / (kReach * scale))));
}

}  // namespace

void quantize_int4(const float* w, int64_t groups, IntRounding rounding, Int4Column* out) {
  GroupRange ranges[kMostIntGroups];
  float largest = 0;
  for (int64_t g = 0; g < groups; ++g) {
    ranges[g] = range_of(w + g * kGroup);
    if (ranges[g].largest > largest) largest = ranges[g].largest;
  }
  *out = {};
  // Columns whose scale would be subnormal are zero: kernels flush such numbers.
  const bool zero = largest < 0x1p-100f;
  if (!zero && rounding == IntRounding::kSearch) search_int4(w, groups, ranges, largest, out);
  if (!zero && rounding == IntRounding::kNearest) nearest_int4(groups, ranges, largest, out);
  for (int64_t g = 0; g < groups; ++g) {
    const int center = ranges[g].zero;
    out->zero[g] = static_cast<uint8_t>(center);
    const float step = static_cast<float>(out->multiplier[g]) * out->scale;
    for (int64_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
      const float q = zero ? 0.0f : (w[i] * (1.0f / step) + kRound) - kRound;
      const float code = q + static_cast<float>(center);
      out->code[i] = static_cast<uint8_t>(code < 0 ? 0 : code > 15 ? 15 : code);
    }
  }
}

void quantize_int8(const float* w, int64_t groups, Int8Column* out) {
  float largest = 0;
  for (int64_t i = 0; i < groups * kGroup; ++i) {
    const float a = std::fabs(w[i]);
    largest = a > largest ? a : largest;
  }
  *out = {};
  if (largest < 0x1p-100f) return;
  out->scale = largest / 127.0f;
  for (int64_t i = 0; i < groups * kGroup; ++i) {
    const float q = (w[i] / out->scale + kRound) - kRound;
    out->code[i] = static_cast<int8_t>(q);
  }
}

}  // namespace sluice
