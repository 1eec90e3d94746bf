// Candidate orders of summation of a matrix unit, on the host and bit for bit.
//
// A unit's order is unknown until a probe has compared it: what the PTX ISA leaves open is how many
// products are added at once, how many bits of each survive the alignment to the largest, and how
// the result is rounded. Each candidate computes acc = sum(acc, a[k] * b[k] ...) for k ascending.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sluice::probe {

// significand * 2^exponent, exactly. `position` is the exponent of the format's hidden bit, which
// a subnormal has not: the place that an alignment by exponents sees.
struct Scaled {
  int32_t significand = 0;
  int exponent = 0;
  int position = 0;
};
Scaled from_bf16(uint16_t bits);
Scaled from_e4m3(uint8_t bits);
double value_of(Scaled s);

enum class Rounding { kNearestEven, kTowardZero };

// The accumulator and `terms` products at a time are added as integers and rounded once to f32.
struct FusedSum {
  int terms = 1;
  // Bits kept below the largest term's leading position, the rest cut off; kExact keeps all.
  int bits = kExact;
  Rounding rounding = Rounding::kNearestEven;
  // A product's position: from its leading one, or from the sum of its factors' exponents.
  bool normalised = false;
  static constexpr int kExact = -1;
};
std::string name_of(const FusedSum& order);
float dot(const FusedSum& order, std::span<const Scaled> a, std::span<const Scaled> b, float c = 0);

// f32 orders. The chain: c = fma(a, b, c). The house's bf16_tile (tensor/arith.h): per 32 k an even
// and an odd chain. The pairwise tree: `terms` products, added by halves, then to c.
float chain(std::span<const Scaled> a, std::span<const Scaled> b, float c = 0);
float even_odd(std::span<const Scaled> a, std::span<const Scaled> b, float c = 0);
float pairwise(std::span<const Scaled> a, std::span<const Scaled> b, int terms, float c = 0);

// The product in f64, and how far from it an order may end that keeps at least `bits` bits below
// the largest term on the way: every term may lose its part below them, twice.
struct Bounded {
  double sum = 0, bound = 0;
};
Bounded bounded_dot(std::span<const Scaled> a, std::span<const Scaled> b, int bits);

struct Candidate {
  std::string name;
  float (*run)(const Candidate&, std::span<const Scaled>, std::span<const Scaled>);
  FusedSum fused;
};
// Every order that the probe tries; `fp8` adds the short alignments seen with 8-bit inputs.
std::vector<Candidate> candidates(bool fp8);

}  // namespace sluice::probe
