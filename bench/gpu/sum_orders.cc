#include "bench/gpu/sum_orders.h"

#include <algorithm>
#include <bit>
#include <climits>
#include <cmath>

namespace sluice::probe {
namespace {

// A sum of integers times powers of two, exact: 14 words of two's complement from 2^-448 up.
class FixedPoint {
 public:
  void add(int64_t significand, int exponent) {
    const auto shift = static_cast<unsigned>(exponent + kLowest);
    const auto value = static_cast<unsigned __int128>(static_cast<__int128>(significand));
    unsigned carry = 0;
    const unsigned first = shift / 64, within = shift % 64;
    for (unsigned i = first; i < kWords; ++i) {
      // Word i of value << shift, sign-extended.
      const unsigned at = i - first;
      uint64_t word = significand < 0 ? ~uint64_t{0} : 0;
      if (at == 0)
        word = static_cast<uint64_t>(value << within);
      else if (at == 1)
        word = static_cast<uint64_t>(within == 0 ? value >> 64 : value >> (64 - within));
      const unsigned __int128 sum =
          static_cast<unsigned __int128>(words_[i]) + word + static_cast<unsigned __int128>(carry);
      words_[i] = static_cast<uint64_t>(sum);
      carry = static_cast<unsigned>(sum >> 64);
    }
  }
  float round(Rounding rounding) const {
    FixedPoint magnitude = *this;
    const bool negative = (words_[kWords - 1] >> 63) != 0;
    if (negative) magnitude.negate();
    int top = -1;
    for (int i = kWords - 1; i >= 0 && top < 0; --i)
      if (magnitude.words_[i] != 0) top = 64 * i + 63 - std::countl_zero(magnitude.words_[i]);
    if (top < 0) return 0.0f;
    // The last bit that f32 keeps: 24 of them, or what is left above 2^-149.
    const int last = std::max(top - 23, kLowest - 149);
    uint32_t kept = 0;
    for (int bit = std::max(top, last); bit >= last; --bit) kept = 2 * kept + magnitude.bit(bit);
    if (rounding == Rounding::kNearestEven && magnitude.bit(last - 1) != 0 &&
        ((kept & 1) != 0 || magnitude.any_below(last - 1)))
      ++kept;
    const float f = std::ldexp(static_cast<float>(kept), last - kLowest);
    return negative ? -f : f;
  }

 private:
  static constexpr int kWords = 14, kLowest = 448;
  uint32_t bit(int i) const { return static_cast<uint32_t>(words_[i / 64] >> (i % 64)) & 1u; }
  bool any_below(int i) const {
    for (int w = 0; w < i / 64; ++w)
      if (words_[w] != 0) return true;
    return (words_[i / 64] & ((uint64_t{1} << (i % 64)) - 1)) != 0;
  }
  void negate() {
    unsigned carry = 1;
    for (uint64_t& w : words_) {
      w = ~w + carry;
      carry = carry != 0 && w == 0 ? 1 : 0;
    }
  }
  uint64_t words_[kWords] = {};
};

Scaled from_f32(float f) {
  int exponent = 0;
  const float fraction = std::frexp(f, &exponent);
  return {static_cast<int32_t>(std::ldexp(fraction, 24)), exponent - 24, exponent - 1};
}

int leading(int64_t significand) {
  return 63 - std::countl_zero(static_cast<uint64_t>(std::abs(significand)));
}

// A term of a fused sum; `position` is the exponent that alignment looks at.
struct Term {
  int64_t significand;
  int exponent, position;
};

Term product(Scaled a, Scaled b, bool normalised) {
  const int64_t s = int64_t{a.significand} * b.significand;
  const int e = a.exponent + b.exponent;
  if (s == 0) return {0, 0, INT_MIN};
  return {s, e, normalised ? e + leading(s) : a.position + b.position};
}

float add_terms(const FusedSum& order, std::span<const Term> terms) {
  int largest = INT_MIN;
  for (const Term& t : terms) largest = std::max(largest, t.position);
  FixedPoint sum;
  for (const Term& t : terms) {
    if (t.significand == 0) continue;
    int64_t s = t.significand;
    int e = t.exponent;
    if (order.bits != FusedSum::kExact && e < largest - order.bits) {
      const int cut = largest - order.bits - e;
      s = cut > 62 ? 0 : (s < 0 ? -(-s >> cut) : s >> cut);
      e += cut;
    }
    if (s != 0) sum.add(s, e);
  }
  return sum.round(order.rounding);
}

float f32_of(Scaled s) {
  return static_cast<float>(value_of(s));
}

Candidate fused(FusedSum order) {
  return {name_of(order),
          [](const Candidate& c, std::span<const Scaled> a, std::span<const Scaled> b) {
            return dot(c.fused, a, b);
          },
          order};
}

}  // namespace

Scaled from_bf16(uint16_t bits) {
  const int exponent = (bits >> 7) & 0xff, mantissa = bits & 0x7f;
  const int significand = exponent == 0 ? mantissa : 128 + mantissa;
  const int position = std::max(exponent, 1) - 127;
  return {(bits & 0x8000) != 0 ? -significand : significand, position - 7, position};
}

Scaled from_e4m3(uint8_t bits) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  const int significand = exponent == 0 ? mantissa : 8 + mantissa;
  const int position = std::max(exponent, 1) - 7;
  return {(bits & 0x80) != 0 ? -significand : significand, position - 3, position};
}

double value_of(Scaled s) {
  return std::ldexp(static_cast<double>(s.significand), s.exponent);
}

std::string name_of(const FusedSum& order) {
  std::string name = "fused" + std::to_string(order.terms);
  name += order.bits == FusedSum::kExact ? "_exact" : "_f" + std::to_string(order.bits);
  if (order.normalised) name += "_norm";
  return name + (order.rounding == Rounding::kNearestEven ? "_rne" : "_rz");
}

float dot(const FusedSum& order, std::span<const Scaled> a, std::span<const Scaled> b, float c) {
  std::vector<Term> terms;
  for (size_t k = 0; k < a.size();) {
    terms.clear();
    const Scaled acc = from_f32(c);
    if (acc.significand != 0) terms.push_back({acc.significand, acc.exponent, acc.position});
    for (int i = 0; i < order.terms && k < a.size(); ++i, ++k)
      terms.push_back(product(a[k], b[k], order.normalised));
    c = add_terms(order, terms);
  }
  return c;
}

float chain(std::span<const Scaled> a, std::span<const Scaled> b, float c) {
  for (size_t k = 0; k < a.size(); ++k) c = std::fma(f32_of(a[k]), f32_of(b[k]), c);
  return c;
}

float even_odd(std::span<const Scaled> a, std::span<const Scaled> b, float c) {
  for (size_t k = 0; k < a.size(); k += 32) {
    float part[2] = {0, 0};
    for (size_t i = k; i < std::min(k + 32, a.size()); ++i)
      part[i % 2] = std::fma(f32_of(a[i]), f32_of(b[i]), part[i % 2]);
    c = c + (part[0] + part[1]);
  }
  return c;
}

float pairwise(std::span<const Scaled> a, std::span<const Scaled> b, int terms, float c) {
  std::vector<float> tree;
  for (size_t k = 0; k < a.size(); k += static_cast<size_t>(terms)) {
    tree.assign(static_cast<size_t>(terms), 0.0f);
    for (size_t i = 0; i < tree.size() && k + i < a.size(); ++i)
      tree[i] = f32_of(a[k + i]) * f32_of(b[k + i]);
    for (size_t half = tree.size() / 2; half >= 1; half /= 2)
      for (size_t i = 0; i < half; ++i) tree[i] = tree[2 * i] + tree[2 * i + 1];
    c = c + tree[0];
  }
  return c;
}

Bounded bounded_dot(std::span<const Scaled> a, std::span<const Scaled> b, int bits) {
  Bounded dot;
  double largest = 0;
  for (size_t k = 0; k < a.size(); ++k) {
    const double product = value_of(a[k]) * value_of(b[k]);
    dot.sum += product;
    largest = std::max({largest, std::abs(product), std::abs(dot.sum)});
  }
  dot.bound = 2.0 * static_cast<double>(a.size()) * std::ldexp(largest, -bits);
  return dot;
}

std::vector<Candidate> candidates(bool fp8) {
  using Values = std::span<const Scaled>;
  std::vector<Candidate> all = {
      {"chain", [](const Candidate&, Values a, Values b) { return chain(a, b); }, {}},
      {"even_odd_32", [](const Candidate&, Values a, Values b) { return even_odd(a, b); }, {}},
      {"pairwise_8", [](const Candidate&, Values a, Values b) { return pairwise(a, b, 8); }, {}},
      {"pairwise_16", [](const Candidate&, Values a, Values b) { return pairwise(a, b, 16); }, {}},
      {"pairwise_32", [](const Candidate&, Values a, Values b) { return pairwise(a, b, 32); }, {}},
  };
  std::vector<int> bits = {FusedSum::kExact, 22, 23, 24, 25, 26, 27, 28};
  if (fp8) bits.insert(bits.end(), {12, 13, 14, 15, 16});
  for (const int terms : {4, 8, 16, 32})
    for (const int b : bits)
      for (const Rounding r : {Rounding::kTowardZero, Rounding::kNearestEven})
        for (const bool normalised : {false, true})
          if (b != FusedSum::kExact || !normalised) all.push_back(fused({terms, b, r, normalised}));
  return all;
}

}  // namespace sluice::probe
