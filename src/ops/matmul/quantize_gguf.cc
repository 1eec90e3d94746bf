#include "ops/matmul/quantize_gguf.h"

#include <array>
#include <cmath>

#include "base/fp.h"
#include "weights/block_panels.h"

namespace sluice {
namespace {

constexpr int64_t kGroup = 32, kHalf = 16;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even
constexpr float kTiny = 0x1p-100f;     // smaller weights are zero: kernels flush such scales

// Scales that are tried, as shares of the one that spans the weights. Lines, which are fitted twice
// for each, take half as many: 16 would take off 0.2 % of q4_k's error and 1 % of q5_1's, for twice
// the time.
constexpr int kScales = 16, kLines = 8;
float share(int i, int count, float least, float most) {
  return most - (most - least) * (static_cast<float>(i) / static_cast<float>(count - 1));
}

float clamp(float v, float low, float high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}
float nearest(float v, float low, float high) {
  return clamp((v + kRound) - kRound, low, high);
}

// A multiplier and its neighbours, those that the format holds.
struct Neighbours {
  int first, last;
};
Neighbours neighbours(float middle, int low, int high) {
  const int m = static_cast<int>(middle);
  return {m > low ? m - 1 : low, m < high ? m + 1 : high};
}

// Sums of a fixed order: 16 partial ones, so that any compiler may use vectors.
struct Sum {
  float partial[kHalf] = {};
  float total() {
    for (int64_t half = kHalf / 2; half >= 1; half /= 2)
      for (int64_t j = 0; j < half; ++j) partial[j] += partial[j + half];
    return partial[0];
  }
};

// iq4_nl's nearest code of v, at 2 v + 256: midpoints of its levels are halves. (That sum is
// rounded: a value within 2^-16 of a midpoint may take either side of it.)
constexpr std::array<uint8_t, 512> nearest_codes() {
  std::array<uint8_t, 512> out{};
  for (int i = 0, c = 0; i < 512; ++i) {
    while (c < 15 && i >= kIq4NlLevels[c] + kIq4NlLevels[c + 1]) ++c;
    out[static_cast<size_t>(i)] = static_cast<uint8_t>(c);
  }
  return out;
}
constexpr std::array<uint8_t, 512> kNearestCodes = nearest_codes();
uint8_t code_in_table(float v) {
  return kNearestCodes[static_cast<size_t>(2 * clamp(v, -127, 127) + 256)];
}

// Levels around 0: integers from low to high, or iq4_nl's.
struct LevelSet {
  float low = 0, high = 0;
  bool table = false;

  float operator()(float v) const {
    return table ? static_cast<float>(kIq4NlLevels[code_in_table(v)]) - 128 : nearest(v, low, high);
  }
};
LevelSet levels_of(WeightFormat format) {
  const BlockTraits t = block_traits(format);
  if (t.level.given) return {-127, 113, true};
  return {static_cast<float>(-t.zero), static_cast<float>((1 << t.bits) - 1 - t.zero)};
}

// The scale of `count` weights, 16 or 32: w ~ scale * level. 0 where they are all tiny.
float fit_scale(const float* w, int64_t count, const LevelSet& levels, IntRounding rounding) {
  float most = 0;
  for (int64_t i = 0; i < count; ++i)
    if (std::fabs(w[i]) > std::fabs(most)) most = w[i];
  if (std::fabs(most) < kTiny) return 0;
  const float span = most / levels.low;
  if (rounding == IntRounding::kNearest) return span;
  float best = span, best_gain = -1;
  for (int i = -1; i < kScales; ++i) {
    const float inverse = 1.0f / (i < 0 ? span : span * share(i, kScales, 0.75f, 1.1f));
    Sum wq, qq;
    for (int64_t j = 0; j < count; ++j) {
      const float q = levels(w[j] * inverse);
      wq.partial[j % kHalf] += w[j] * q;
      qq.partial[j % kHalf] += q * q;
    }
    const float a = wq.total(), b = qq.total();
    // With the scale a / b these codes leave sum w^2 - a^2 / b.
    if (b <= 0 || a / b * a <= best_gain) continue;
    best_gain = a / b * a;
    best = a / b;
  }
  return best;
}

// w ~ scale * code + min, codes 0 to top.
struct Line {
  float scale = 0, min = 0;
};

float error_of(const float* w, const Line& line, float top) {
  const float inverse = line.scale != 0 ? 1.0f / line.scale : 0;
  Sum sum;
  for (int64_t i = 0; i < kGroup; ++i) {
    const float q = nearest((w[i] - line.min) * inverse, 0, top);
    const float e = (w[i] - line.min) - line.scale * q;
    sum.partial[i % kHalf] += e * e;
  }
  return sum.total();
}

// The line of the least squared error for the codes that `line` gives; min at most 0 if `below`.
Line refit(const float* w, const Line& line, float top, bool below) {
  const float inverse = 1.0f / line.scale;
  Sum sum_q, sum_qq, sum_w, sum_wq;
  for (int64_t i = 0; i < kGroup; ++i) {
    const float q = nearest((w[i] - line.min) * inverse, 0, top);
    const int64_t j = i % kHalf;
    sum_q.partial[j] += q;
    sum_qq.partial[j] += q * q;
    sum_w.partial[j] += w[i];
    sum_wq.partial[j] += w[i] * q;
  }
  const float n = kGroup, q = sum_q.total(), qq = sum_qq.total();
  const float s = sum_w.total(), wq = sum_wq.total();
  const float determinant = n * qq - q * q;
  if (determinant <= 0) return line;  // all codes are the same
  Line out;
  out.scale = (n * wq - q * s) / determinant;
  out.min = (s - out.scale * q) / n;
  if (below && out.min > 0) out = {wq / qq, 0};
  return out.scale > 0 ? out : line;
}

Line fit_line(const float* w, float top, bool below, IntRounding rounding) {
  float low = w[0], high = w[0];
  for (int64_t i = 1; i < kGroup; ++i) {
    low = w[i] < low ? w[i] : low;
    high = w[i] > high ? w[i] : high;
  }
  if (below && low > 0) low = 0;
  if (below && high < 0) high = 0;
  const float range = high - low;
  if (range < kTiny) return {0, std::fabs(low) < kTiny ? 0 : low};
  const Line span{range / top, low};
  if (rounding == IntRounding::kNearest) return span;
  Line best = span;
  float best_error = error_of(w, span, top);
  for (int i = 0; i < kLines; ++i) {
    const float part = share(i, kLines, 0.7f, 1.05f);
    const Line tried{span.scale * part, low + 0.5f * (1 - part) * range};
    const Line line = refit(w, refit(w, tried, top, below), top, below);
    const float error = error_of(w, line, top);
    if (error >= best_error) continue;
    best_error = error;
    best = line;
  }
  return best;
}

// To half precision; false where it does not fit.
bool to_half(float v, uint16_t* half) {
  *half = f32_to_f16(v);
  return (*half & 0x7c00u) != 0x7c00u;
}
Status overflow(WeightFormat format, float v) {
  return data_loss("{}: a scale of {} overflows f16", weight_format_name(format), v);
}

// q5_0, iq4_nl.
Status quantize_scaled(WeightFormat format, const float* w, int64_t groups, IntRounding rounding,
                       BlockColumn* out) {
  const LevelSet levels = levels_of(format);
  for (int64_t g = 0; g < groups; ++g, w += kGroup) {
    const float scale = fit_scale(w, kGroup, levels, rounding);
    if (!to_half(scale, &out->scale[g])) return overflow(format, scale);
    const float kept = f16_to_f32(out->scale[g]), inverse = kept != 0 ? 1.0f / kept : 0;
    for (int64_t i = 0; i < kGroup; ++i)
      out->code[kGroup * g + i] = static_cast<uint8_t>(
          levels.table ? code_in_table(w[i] * inverse) : levels(w[i] * inverse) - levels.low);
  }
  return ok_status();
}

void choose_codes(const float* w, const Line& line, float top, uint8_t* code) {
  const float inverse = line.scale != 0 ? 1.0f / line.scale : 0;
  for (int64_t i = 0; i < kGroup; ++i)
    code[i] = static_cast<uint8_t>(nearest((w[i] - line.min) * inverse, 0, top));
}

Status quantize_q5_1(const float* w, int64_t groups, IntRounding rounding, BlockColumn* out) {
  constexpr float kTop = 31;
  for (int64_t g = 0; g < groups; ++g, w += kGroup) {
    const Line line = fit_line(w, kTop, false, rounding);
    if (!to_half(line.scale, &out->scale[g]) || !to_half(line.min, &out->min[g]))
      return overflow(WeightFormat::kQ5_1, std::fmax(line.scale, std::fabs(line.min)));
    choose_codes(w, {f16_to_f32(out->scale[g]), f16_to_f32(out->min[g])}, kTop,
                 out->code + kGroup * g);
  }
  return ok_status();
}

// The multipliers of a group: the nearest to its line, or of its neighbours the best.
void choose_six(const float* w, const Line& line, const Line& unit, float top, IntRounding rounding,
                uint8_t* multiplier, uint8_t* min_multiplier) {
  const float m = unit.scale > 0 ? nearest(line.scale / unit.scale, 0, 63) : 0;
  const float n = unit.min > 0 ? nearest(-line.min / unit.min, 0, 63) : 0;
  *multiplier = static_cast<uint8_t>(m);
  *min_multiplier = static_cast<uint8_t>(n);
  if (rounding == IntRounding::kNearest) return;
  float best = -1;
  const Neighbours scales = neighbours(m, 0, 63), mins = neighbours(n, 0, 63);
  for (int a = scales.first; a <= scales.last; ++a)
    for (int b = mins.first; b <= mins.last; ++b) {
      const Line line_at{unit.scale * static_cast<float>(a), -(unit.min * static_cast<float>(b))};
      const float error = error_of(w, line_at, top);
      if (best >= 0 && error >= best) continue;
      best = error;
      *multiplier = static_cast<uint8_t>(a);
      *min_multiplier = static_cast<uint8_t>(b);
    }
}

// q4_k, q5_k.
Status quantize_six(WeightFormat format, const float* w, int64_t groups, IntRounding rounding,
                    BlockColumn* out) {
  const auto top = static_cast<float>((1 << block_traits(format).bits) - 1);
  Line lines[kBlockGroups], most;
  for (int64_t g = 0; g < groups; ++g) {
    lines[g] = fit_line(w + kGroup * g, top, true, rounding);
    most.scale = std::fmax(most.scale, lines[g].scale);
    most.min = std::fmax(most.min, -lines[g].min);
  }
  if (!to_half(most.scale / 63, &out->scale[0]) || !to_half(most.min / 63, &out->min[0]))
    return overflow(format, std::fmax(most.scale, most.min) / 63);
  const Line unit{f16_to_f32(out->scale[0]), f16_to_f32(out->min[0])};
  for (int64_t g = 0; g < groups; ++g) {
    const float* group = w + kGroup * g;
    choose_six(group, lines[g], unit, top, rounding, &out->multiplier[g], &out->min_multiplier[g]);
    choose_codes(group,
                 {unit.scale * static_cast<float>(out->multiplier[g]),
                  -(unit.min * static_cast<float>(out->min_multiplier[g]))},
                 top, out->code + kGroup * g);
  }
  return ok_status();
}

// Squared error of 16 weights under a scale.
float error_of(const float* w, float scale, const LevelSet& levels) {
  const float inverse = scale != 0 ? 1.0f / scale : 0;
  Sum sum;
  for (int64_t i = 0; i < kHalf; ++i) {
    const float e = w[i] - scale * levels(w[i] * inverse);
    sum.partial[i] += e * e;
  }
  return sum.total();
}

Status quantize_q6_k(const float* w, int64_t groups, IntRounding rounding, BlockColumn* out) {
  const LevelSet levels = levels_of(WeightFormat::kQ6_K);
  const int64_t halves = 2 * groups;
  float scales[2 * kBlockGroups] = {}, most = 0;
  for (int64_t h = 0; h < halves; ++h) {
    scales[h] = fit_scale(w + kHalf * h, kHalf, levels, rounding);
    if (std::fabs(scales[h]) > std::fabs(most)) most = scales[h];
  }
  // The largest scale takes -128: multipliers reach farther below zero.
  if (!to_half(most / -128, &out->scale[0])) return overflow(WeightFormat::kQ6_K, most / -128);
  const float unit = f16_to_f32(out->scale[0]), inverse = unit != 0 ? 1.0f / unit : 0;
  for (int64_t h = 0; h < halves; ++h) {
    const float* half = w + kHalf * h;
    float multiplier = nearest(scales[h] * inverse, -128, 127);
    if (rounding == IntRounding::kSearch) {
      float best = -1;
      const Neighbours tried = neighbours(multiplier, -128, 127);
      for (int m = tried.first; m <= tried.last; ++m) {
        const float error = error_of(half, unit * static_cast<float>(m), levels);
        if (best >= 0 && error >= best) continue;
        best = error;
        multiplier = static_cast<float>(m);
      }
    }
    out->half_multiplier[h] = static_cast<int8_t>(multiplier);
    const float step = unit * multiplier, one = step != 0 ? 1.0f / step : 0;
    for (int64_t i = 0; i < kHalf; ++i)
      out->code[kHalf * h + i] = static_cast<uint8_t>(levels(half[i] * one) - levels.low);
  }
  return ok_status();
}

}  // namespace

Status quantize_block_column(WeightFormat format, const float* w, int64_t groups,
                             IntRounding rounding, BlockColumn* out) {
  *out = {};
  switch (format) {
    case WeightFormat::kQ5_0:
    case WeightFormat::kIQ4_NL:
      return quantize_scaled(format, w, groups, rounding, out);
    case WeightFormat::kQ5_1:
      return quantize_q5_1(w, groups, rounding, out);
    case WeightFormat::kQ4_K:
    case WeightFormat::kQ5_K:
      return quantize_six(format, w, groups, rounding, out);
    case WeightFormat::kQ6_K:
      return quantize_q6_k(w, groups, rounding, out);
    default: {
      std::byte stored[kBlockGroups * 34];
      SLUICE_RETURN_IF_ERROR(quantize_blocks(format, w, groups, stored));
      *out = read_stored_blocks(format, stored, 0, groups);
      return ok_status();
    }
  }
}

}  // namespace sluice
