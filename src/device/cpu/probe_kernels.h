// The probes' loops over the virtual vector; included once per ISA.
#pragma once

#include <cstdint>

namespace sluice::simd {

// Eight independent sums hide the latency of an addition. Lines are asked for 1 KiB ahead: on a
// Xeon with AMX two cores read 32.4 GB/s so, 29.7 on the hardware's prefetchers alone.
template <class V>
float probe_sum(const float* data, int64_t count) {
  typename V::F sum[8];
  for (auto& s : sum) s = V::zero();
  for (int64_t i = 0; i < count; i += 128)
    for (int j = 0; j < 8; ++j) {
      V::prefetch(data + i + 16 * j + 256);
      sum[j] = V::add(sum[j], V::load(data + i + 16 * j));
    }
  for (int j = 1; j < 8; ++j) sum[0] = V::add(sum[0], sum[j]);
  float lanes[16];
  V::store(lanes, sum[0]);
  float total = 0;
  for (const float l : lanes) total += l;
  return total;
}

// `Chains` dependent chains of 16-lane multiply-adds: enough to keep every unit busy, few enough to
// stay in registers.
template <class V, int Chains>
float probe_fma(int64_t rounds) {
  typename V::F x[Chains];
  for (int j = 0; j < Chains; ++j) x[j] = V::set1(1.0f + 0.001f * static_cast<float>(j));
  const typename V::F a = V::set1(0.9999f), b = V::set1(0.0001f);
  for (int64_t r = 0; r < rounds; ++r)
    for (int j = 0; j < Chains; ++j) x[j] = V::fma(x[j], a, b);
  for (int j = 1; j < Chains; ++j) x[0] = V::add(x[0], x[j]);
  float lanes[16];
  V::store(lanes, x[0]);
  return lanes[0] + lanes[15];
}

// Unsigned by signed bytes, exact: as many chains as hide the latency of two products a cycle.
inline constexpr int kDotChains = 12;
template <class V>
float probe_dot(int64_t rounds) {
  typename V::I sum[kDotChains];
  for (auto& s : sum) s = V::seti(0);
  typename V::I a = V::seti(0x01010101);
  const typename V::I b = V::seti(0x02020202), step = V::seti(1);
  for (int64_t r = 0; r < rounds; ++r) {
    a = V::addi(a, step);  // another product every round
    for (int j = 0; j < kDotChains; ++j) sum[j] = V::dot_u8s8(sum[j], a, b);
  }
  for (int j = 1; j < kDotChains; ++j) sum[0] = V::addi(sum[0], sum[j]);
  int32_t lanes[16];
  V::store_i32(lanes, sum[0]);
  return static_cast<float>(lanes[0]);
}

}  // namespace sluice::simd
