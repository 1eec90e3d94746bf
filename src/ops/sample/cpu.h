// sample's passes over the vector vocabulary: reference.cc, sixteen tokens at a time.
#pragma once

#include <cstdint>

#include "ops/sample/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

template <class V>
float sample_max(const float* x, int64_t n) {
  // Four maxima, because one would wait for itself; the largest value is the same.
  auto m0 = V::set1(-__builtin_inff()), m1 = m0, m2 = m0, m3 = m0;
  int64_t j = 0;
  for (; j + 64 <= n; j += 64) {
    m0 = V::max(V::load(x + j), m0);
    m1 = V::max(V::load(x + j + 16), m1);
    m2 = V::max(V::load(x + j + 32), m2);
    m3 = V::max(V::load(x + j + 48), m3);
  }
  for (; j + 16 <= n; j += 16) m0 = V::max(V::load(x + j), m0);
  if (j < n)
    m1 =
        V::max(V::select(V::first(n - j), V::load_n(x + j, n - j), V::set1(-__builtin_inff())), m1);
  return V::reduce_max(V::max(V::max(m0, m1), V::max(m2, m3)));
}

template <class V>
int64_t sample_first_equal(const float* x, int64_t n, float value) {
  const auto v = V::set1(value);
  int64_t j = 0;
  for (; j + 64 <= n; j += 64) {
    uint64_t mask = 0;
    for (int i = 0; i < 4; ++i)
      mask |= uint64_t{V::bits(V::equal(V::load(x + j + 16 * i), v))} << (16 * i);
    if (mask != 0) return j + __builtin_ctzll(mask);
  }
  for (; j < n; j += 16) {
    const int64_t left = n - j < 16 ? n - j : 16;
    const uint32_t mask = V::bits(V::equal(V::load_n(x + j, left), v)) & ((1u << left) - 1u);
    if (mask != 0) return j + __builtin_ctz(mask);
  }
  return n;
}

template <class V>
float sample_exp_sum(const float* x, int64_t n, float max) {
  const auto m = V::set1(max);
  const auto term = [m](typename V::F v) {
    const auto e = exp<V>(V::sub(v, m));
    return V::select(V::is_nan(e), V::zero(), e);
  };
  typename V::F p0 = V::zero(), p1 = V::zero();
  int64_t j = 0;
  for (; j + 32 <= n; j += 32) {
    p0 = V::add(p0, term(V::load(x + j)));
    p1 = V::add(p1, term(V::load(x + j + 16)));
  }
  if (j + 16 <= n) {
    p0 = V::add(p0, term(V::load(x + j)));
    j += 16;
    if (j < n)
      p1 = V::add(p1, V::select(V::first(n - j), term(V::load_n(x + j, n - j)), V::zero()));
  } else if (j < n) {
    p0 = V::add(p0, V::select(V::first(n - j), term(V::load_n(x + j, n - j)), V::zero()));
  }
  return V::reduce_add(V::add(p0, p1));
}

// Distances of up to 16 tokens; lanes past n are NaN, which is in no range.
template <class V>
typename V::F sample_distance(const SampleView& view, int64_t j) {
  const auto inverse = V::set1(view.inverse_temperature), max = V::set1(view.max);
  if (j + 16 <= view.n) return V::mul(V::sub(max, V::load(view.logits + j)), inverse);
  const auto d = V::mul(V::sub(max, V::load_n(view.logits + j, view.n - j)), inverse);
  return V::select(V::first(view.n - j), d, V::set1(__builtin_nanf("")));
}

template <class V>
typename V::I sample_mass_of(typename V::F d) {
  return V::truncate(V::mul(exp<V>(negate<V>(d)), V::set1(kMassUnit)));
}

// Sums in halves of 15 and 16 bits, so that 32-bit lanes hold kFlush of them.
template <class V>
uint64_t sample_mass(const SampleView& view, float limit) {
  constexpr int64_t kFlush = 16 * 32768;
  const auto most = V::set1(limit);
  uint64_t total = 0;
  for (int64_t start = 0; start < view.n; start += kFlush) {
    const int64_t end = start + kFlush < view.n ? start + kFlush : view.n;
    auto low = V::seti(0), high = V::seti(0);
    for (int64_t j = start; j < end; j += 16) {
      const auto d = sample_distance<V>(view, j);
      // d <= limit, and no NaN: neither greater nor unordered.
      const auto far = V::select(V::greater(d, most), V::set1(__builtin_inff()), d);
      const auto finite = V::select(V::is_nan(far), V::set1(__builtin_inff()), far);
      const auto mass = sample_mass_of<V>(finite);
      low = V::addi(low, V::andi(mass, V::seti(0x7fff)));
      high = V::addi(high, V::template shr<15>(mass));
    }
    uint32_t lanes[2][16];
    V::store_i32(lanes[0], low);
    V::store_i32(lanes[1], high);
    for (int i = 0; i < 16; ++i) total += lanes[0][i] + (uint64_t{lanes[1][i]} << 15);
  }
  return total;
}

template <class V>
void sample_histogram(const SampleView& view, const SampleRange& range, SampleBin* bins) {
  // Comparisons read subnormal bounds as zero; no distance is subnormal, so moving a bound to the
  // end of that stretch changes nothing else.
  constexpr uint64_t kNormal = 0x00800000u, kInfinity = 0x7f800000u;
  if (range.low > 0 && range.low < kNormal) return;
  const uint64_t past = uint64_t{range.low} + (static_cast<uint64_t>(range.bins) << range.shift);
  const uint64_t bounded = past < kNormal ? kNormal : past < kInfinity ? past : kInfinity;
  const auto end = V::set1(__builtin_bit_cast(float, static_cast<uint32_t>(bounded)));
  const auto low = V::set1(__builtin_bit_cast(float, range.low));
  for (int64_t j = 0; j < view.n; j += 16) {
    const auto d = sample_distance<V>(view, j);
    uint32_t mask = V::bits(V::less(d, end)) & ~V::bits(V::less(d, low));
    if (mask == 0) continue;
    uint32_t at[16], mass[16];
    V::store_i32(at, V::bits_of(d));
    V::store_i32(mass, sample_mass_of<V>(d));
    for (; mask != 0; mask &= mask - 1) {
      const int i = __builtin_ctz(mask);
      SampleBin& bin = bins[(at[i] - range.low) >> range.shift];
      bin.mass += mass[i];
      bin.count += 1;
    }
  }
}

template <class V>
int64_t sample_nth_at(const SampleView& view, float distance, int64_t index) {
  const auto wanted = V::set1(distance);
  for (int64_t j = 0; j < view.n; j += 16) {
    uint32_t mask = V::bits(V::equal(sample_distance<V>(view, j), wanted));
    for (; mask != 0; mask &= mask - 1)
      if (index-- == 0) return j + __builtin_ctz(mask);
  }
  return view.n;
}

template <class V>
int64_t sample_collect(const SampleView& view, int64_t begin, SampleCandidates& c) {
  const auto limit = V::set1(c.limit);
  int64_t j = begin;
  for (; j < view.n && c.capacity - c.count >= kSampleRoom; j += 16) {
    const auto d = sample_distance<V>(view, j);
    uint32_t mask = V::bits(V::less(d, limit));
    if (mask == 0) continue;
    uint32_t at[16];
    V::store_i32(at, V::bits_of(d));
    for (; mask != 0; mask &= mask - 1) {
      const int i = __builtin_ctz(mask);
      c.keys[c.count++] = (uint64_t{at[i]} << 32) | static_cast<uint32_t>(j + i);
    }
  }
  return j < view.n ? j : view.n;
}

template <class V>
constexpr SampleKernel sample_kernel() {
  return {sample_max<V>,       sample_first_equal<V>, sample_exp_sum<V>, sample_mass<V>,
          sample_histogram<V>, sample_nth_at<V>,      sample_collect<V>};
}

}  // namespace sluice::simd
