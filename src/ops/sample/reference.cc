#include <cmath>

#include "base/fp.h"
#include "ops/sample/mass.h"

namespace sluice {
namespace {

float distance(const SampleView& v, int64_t j) {
  return sample_distance(v.max, v.logits[j], v.inverse_temperature);
}

float max_of(const float* x, int64_t n) {
  float m = -INFINITY;
  for (int64_t j = 0; j < n; ++j) m = scalar::max(x[j], m);
  return m;
}

int64_t first_equal(const float* x, int64_t n, float value) {
  int64_t j = 0;
  while (j < n && !(x[j] == value)) ++j;
  return j;
}

float exp_sum(const float* x, int64_t n, float max) {
  scalar::Sum32 sum;
  for (int64_t j = 0; j < n; ++j) {
    const float e = scalar::exp(x[j] - max);
    sum.add(j, e == e ? e : 0.0f);
  }
  return sum.total();
}

uint64_t mass(const SampleView& v, float limit) {
  uint64_t total = 0;
  for (int64_t j = 0; j < v.n; ++j)
    if (distance(v, j) <= limit) total += sample_mass(distance(v, j));
  return total;
}

void histogram(const SampleView& v, const SampleRange& range, SampleBin* bins) {
  for (int64_t j = 0; j < v.n; ++j) {
    const float d = distance(v, j);
    if (!(d < INFINITY)) continue;
    const uint32_t at = (f32_to_bits(d) - range.low) >> range.shift;
    if (f32_to_bits(d) < range.low || at >= static_cast<uint32_t>(range.bins)) continue;
    bins[at].mass += sample_mass(d);
    bins[at].count += 1;
  }
}

int64_t nth_at(const SampleView& v, float d, int64_t index) {
  int64_t j = 0;
  for (; j < v.n; ++j)
    if (distance(v, j) == d && index-- == 0) break;
  return j;
}

int64_t collect(const SampleView& v, int64_t begin, SampleCandidates& c) {
  int64_t j = begin;
  for (; j < v.n && c.capacity - c.count >= kSampleRoom; ++j) {
    const float d = distance(v, j);
    if (d < c.limit)
      c.keys[c.count++] = (uint64_t{f32_to_bits(d)} << 32) | static_cast<uint32_t>(j);
  }
  return j;
}

}  // namespace

const SampleKernel sample_f32_reference = {max_of,    first_equal, exp_sum, mass,
                                           histogram, nth_at,      collect};

}  // namespace sluice
