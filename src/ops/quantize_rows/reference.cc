#include <cmath>

#include "ops/quantize_rows/kernels.h"

namespace sluice {
namespace {

float widened(float v) {
  return v;
}
float widened(uint16_t v) {
  return static_cast<float>(bf16::from_bits(v));
}

template <class T>
struct Row {
  const T* x;
  const float* smooth;
  float operator()(int64_t i) const {
    return smooth != nullptr ? widened(x[i]) * smooth[i] : widened(x[i]);
  }
};

template <class T>
float amax_of(const Row<T>& y, int64_t begin, int64_t end) {
  float amax = 0;
  bool nan = false;
  for (int64_t i = begin; i < end; ++i) {
    nan = nan || std::isnan(y(i));
    amax = std::fabs(y(i)) > amax ? std::fabs(y(i)) : amax;
  }
  return nan ? NAN : amax;
}

template <class T>
void write_codes(const QuantizeRule& rule, const GroupScale& s, const Row<T>& y, int64_t begin,
                 int64_t end, uint8_t* codes) {
  const bool nan = std::isnan(s.scale);
  for (int64_t i = begin; i < end; ++i) {
    if (rule.to == QuantizeTo::kE4m3)
      codes[i] = nan ? 0x7f : f32_to_e4m3(y(i) * s.factor);
    else
      codes[i] =
          nan ? 0 : static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(y(i) / s.factor)));
  }
}

template <class T>
void quantize(const QuantizeRowsTask& task) {
  if (task.step == QuantizeStep::kAmax) *task.amax = 0;
  for (int64_t t = 0; t < task.rows; ++t) {
    const Row<T> y{static_cast<const T*>(task.x) + t * task.x_stride, task.smooth};
    uint8_t* codes = task.codes + t * task.codes_stride;
    if (task.step == QuantizeStep::kAmax) {
      const float amax = amax_of(y, 0, task.d);
      if (std::isnan(amax) || amax > *task.amax) *task.amax = amax;
      if (std::isnan(amax)) return;
    } else if (task.step == QuantizeStep::kCodes) {
      write_codes(task.rule, task.given, y, 0, task.d, codes);
    } else {
      for (int64_t begin = 0, g = 0; begin < task.d; begin += task.group, ++g) {
        const int64_t end = begin + task.group < task.d ? begin + task.group : task.d;
        const GroupScale s = group_scale(task.rule, amax_of(y, begin, end));
        task.scales.data[t * task.scales.row_stride + g * task.scales.group_stride] = s.scale;
        write_codes(task.rule, s, y, begin, end, codes);
      }
    }
  }
}

}  // namespace

void quantize_rows_f32_reference(const QuantizeRowsTask& task) {
  quantize<float>(task);
}
void quantize_rows_bf16_reference(const QuantizeRowsTask& task) {
  quantize<uint16_t>(task);
}

}  // namespace sluice
