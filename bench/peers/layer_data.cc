#include "layer_data.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

namespace peers {
namespace {

constexpr uint64_t kSeed = 20261121;

// SplitMix64: a counter in, 64 good bits out, so that every array has its own stream.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
uint64_t stream_of(uint64_t kind, uint64_t a, uint64_t b = 0) {
  return mix(mix(mix(kSeed ^ kind << 56) ^ a) ^ b);
}
double unit(uint64_t stream, uint64_t i) {  // (0, 1]
  return static_cast<double>((mix(stream + i * 0x2545f4914f6cdd1du) >> 11) + 1) * 0x1p-53;
}

// Box-Muller, a pair at a time.
void fill_gaussian(uint64_t stream, int64_t n, double deviation, float* out) {
  for (int64_t i = 0; i < n; i += 2) {
    const auto u = static_cast<uint64_t>(i);
    const double radius = deviation * std::sqrt(-2 * std::log(unit(stream, u)));
    const double angle = 2 * M_PI * unit(stream, u + 1);
    out[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < n) out[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

double activate(Glu glu, double gate, double up) {
  switch (glu) {
    case Glu::kSilu:
      return gate / (1 + std::exp(-gate)) * up;
    case Glu::kGeluTanh:
      return 0.5 * gate *
             (1 + std::tanh(std::sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate))) * up;
    case Glu::kSwigluOai: {
      const double g = std::min(gate, 7.0), u = std::clamp(up, -7.0, 7.0);
      return (u + 1) * (g / (1 + std::exp(-1.702 * g)));
    }
  }
  return 0;
}

struct Expert {
  std::vector<float> gate, up, down, gate_bias, up_bias, down_bias;
};
Expert make_expert(const Shape& s, int64_t content) {
  Expert e;
  const auto make = [&](Matrix which, std::vector<float>& w, std::vector<float>& b, int64_t rows) {
    w.resize(static_cast<size_t>(s.d * s.i));
    fill_matrix(s, content, which, w.data());
    b.assign(static_cast<size_t>(rows), 0.0f);
    if (s.bias()) fill_bias(s, content, which, b.data());
  };
  make(Matrix::kGate, e.gate, e.gate_bias, s.i);
  make(Matrix::kUp, e.up, e.up_bias, s.i);
  make(Matrix::kDown, e.down, e.down_bias, s.d);
  return e;
}
template <class X>
double dot(const float* w, const X* x, int64_t n) {
  double sum[4] = {};
  for (int64_t i = 0; i < n; ++i)
    sum[i % 4] += static_cast<double>(w[i]) * static_cast<double>(x[i]);
  return sum[0] + sum[1] + sum[2] + sum[3];
}
void add_expert(const Shape& s, const Expert& e, const float* x, double weight, double* out) {
  std::vector<double> hidden(static_cast<size_t>(s.i));
  for (int64_t i = 0; i < s.i; ++i) {
    const auto u = static_cast<size_t>(i);
    hidden[u] = activate(s.glu, dot(&e.gate[u * static_cast<size_t>(s.d)], x, s.d) + e.gate_bias[u],
                         dot(&e.up[u * static_cast<size_t>(s.d)], x, s.d) + e.up_bias[u]);
  }
  for (int64_t n = 0; n < s.d; ++n) {
    const auto u = static_cast<size_t>(n);
    out[n] +=
        weight * (dot(&e.down[u * static_cast<size_t>(s.i)], hidden.data(), s.i) + e.down_bias[u]);
  }
}

}  // namespace

bool parse_shape(const std::string& text, Shape* shape) {
  std::istringstream in(text);
  char comma[4] = {};
  std::string glu;
  in >> shape->d >> comma[0] >> shape->i >> comma[1] >> shape->e >> comma[2] >> shape->k >>
      comma[3] >> glu;
  if (!in || std::string(comma, 4) != ",,,,") return false;
  if (glu == "silu")
    shape->glu = Glu::kSilu;
  else if (glu == "gelu_tanh")
    shape->glu = Glu::kGeluTanh;
  else if (glu == "swiglu_oai")
    shape->glu = Glu::kSwigluOai;
  else
    return false;
  return shape->d > 0 && shape->i > 0 && shape->k > 0 && shape->k <= shape->e && shape->k <= 64;
}

void fill_matrix(const Shape& s, int64_t content, Matrix which, float* out) {
  const int64_t inputs = which == Matrix::kDown ? s.i : s.d;
  fill_gaussian(stream_of(1, static_cast<uint64_t>(content), static_cast<uint64_t>(which)),
                s.d * s.i, 1 / std::sqrt(static_cast<double>(inputs)), out);
}
void fill_bias(const Shape& s, int64_t content, Matrix which, float* out) {
  fill_gaussian(stream_of(2, static_cast<uint64_t>(content), static_cast<uint64_t>(which)),
                which == Matrix::kDown ? s.d : s.i, 0.1, out);
}
void fill_x(const Shape& s, int64_t first, int64_t rows, float* out) {
  for (int64_t t = 0; t < rows; ++t)
    fill_gaussian(stream_of(3, static_cast<uint64_t>(first + t)), s.d, 1.0, out + t * s.d);
}

void on_all_cores(int64_t n, const std::function<void(int64_t)>& body) {
  std::vector<std::thread> workers;
  const int64_t count = std::max(1u, std::thread::hardware_concurrency());
  for (int64_t w = 0; w < count; ++w)
    workers.emplace_back([=, &body] {
      for (int64_t i = w; i < n; i += count) body(i);
    });
  for (std::thread& w : workers) w.join();
}

bool parse_routing(const std::string& text, Routing* routing) {
  if (text == "uniform")
    *routing = Routing::kUniform;
  else if (text == "zipf")
    *routing = Routing::kZipf;
  else if (text == "one")
    *routing = Routing::kOne;
  else
    return false;
  return true;
}

void route(const Shape& s, Routing routing, int64_t call, int64_t first, int64_t rows, int32_t* ids,
           float* weights) {
  // The K largest of u^(1/w): a draw without replacement with probabilities proportional to w.
  std::vector<std::pair<double, int32_t>> keys(static_cast<size_t>(s.e));
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t token = routing == Routing::kOne ? 0 : first + t;
    const uint64_t stream = stream_of(4, static_cast<uint64_t>(call), static_cast<uint64_t>(token));
    for (int64_t e = 0; e < s.e; ++e) {
      // Times 7: neighbours in rank lie apart (a permutation where 7 does not divide E).
      const int64_t rank = routing == Routing::kZipf ? (e * 7 + 3) % s.e + 1 : 1;
      const double key =
          std::log(unit(stream, static_cast<uint64_t>(e))) * static_cast<double>(rank);
      keys[static_cast<size_t>(e)] = {-key, static_cast<int32_t>(e)};
    }
    std::partial_sort(keys.begin(), keys.begin() + s.k, keys.end());
    double total = 0;
    for (int64_t k = 0; k < s.k; ++k) total += unit(stream, static_cast<uint64_t>(s.e + k));
    for (int64_t k = 0; k < s.k; ++k) {
      ids[t * s.k + k] = keys[static_cast<size_t>(k)].second;
      weights[t * s.k + k] =
          static_cast<float>(unit(stream, static_cast<uint64_t>(s.e + k)) / total);
    }
  }
}

int64_t distinct_experts(const Shape& s, const int32_t* ids, size_t count) {
  std::vector<char> seen(static_cast<size_t>(s.e), 0);
  for (size_t i = 0; i < count; ++i) seen[static_cast<size_t>(ids[i])] = 1;
  return std::count(seen.begin(), seen.end(), 1);
}

std::string cache_name(const Shape& s, const std::string& what) {
  const char* const glus[] = {"silu", "gelu_tanh", "swiglu_oai"};
  std::ostringstream name;
  name << 'v' << kDataVersion << '-' << s.d << '-' << s.i << '-' << s.e << '-' << s.k << '-'
       << glus[static_cast<int>(s.glu)] << '-' << what;
  return name.str();
}

void cached(const std::string& name, void* data, size_t bytes, const std::function<void()>& make) {
  const char* folder = std::getenv("SLUICE_PEERS_CACHE");
  if (folder == nullptr) return make();
  const std::string path = std::string(folder) + "/" + name;
  std::error_code absent;
  if (std::filesystem::file_size(path, absent) == bytes && !absent) {
    std::ifstream file(path, std::ios::binary);
    if (file.read(static_cast<char*>(data), static_cast<std::streamsize>(bytes))) return;
  }
  make();
  // Whole or not at all; two processes may write it at once.
  const std::string part = path + "." + std::to_string(::getpid()) + ".part";
  std::ofstream file(part, std::ios::binary);
  file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  file.close();
  if (file)
    std::filesystem::rename(part, path, absent);
  else
    std::filesystem::remove(part, absent);
}

namespace {

std::vector<double> make_reference(const Shape& s, Routing routing) {
  std::vector<float> x(static_cast<size_t>(kErrorTokens * s.d));
  fill_x(s, 0, kErrorTokens, x.data());
  std::vector<int32_t> ids(static_cast<size_t>(kErrorTokens * s.k));
  std::vector<float> weights(ids.size());
  route(s, routing, kErrorCall, 0, kErrorTokens, ids.data(), weights.data());
  // A part per content, added in order: the same sum whatever the cores.
  std::vector<std::vector<double>> parts(static_cast<size_t>(s.contents()));
  on_all_cores(s.contents(), [&](int64_t content) {
    const Expert expert = make_expert(s, content);
    std::vector<double>& part = parts[static_cast<size_t>(content)];
    part.resize(x.size());
    for (size_t pair = 0; pair < ids.size(); ++pair) {
      const size_t token = pair / static_cast<size_t>(s.k) * static_cast<size_t>(s.d);
      if (ids[pair] % kContents == content)
        add_expert(s, expert, &x[token], weights[pair], &part[token]);
    }
  });
  std::vector<double> out(x.size(), 0.0);
  for (const auto& part : parts)
    for (size_t i = 0; i < out.size(); ++i) out[i] += part[i];
  return out;
}

}  // namespace

std::vector<double> reference_output(const Shape& s, Routing routing) {
  const char* const routings[] = {"uniform", "zipf", "one"};
  std::vector<double> out(static_cast<size_t>(kErrorTokens * s.d));
  cached(cache_name(s, std::string("reference-") + routings[static_cast<int>(routing)]), out.data(),
         out.size() * sizeof(double), [&] {
           const std::vector<double> made = make_reference(s, routing);
           std::copy(made.begin(), made.end(), out.begin());  // cached() looks where out is now
         });
  return out;
}

double relative_error(const std::vector<double>& reference, const std::vector<float>& out) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double d = static_cast<double>(out[i]) - reference[i];
    difference += d * d;
    norm += reference[i] * reference[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace peers

// For Python (ctypes). A shape that does not parse leaves the arrays alone and returns 0.
#define SLUICE_PEERS_EXPORT extern "C" __attribute__((visibility("default")))

SLUICE_PEERS_EXPORT int peers_fill_matrix(const char* shape, int64_t content, int which,
                                          float* out) {
  peers::Shape s;
  if (!peers::parse_shape(shape, &s)) return 0;
  peers::fill_matrix(s, content, static_cast<peers::Matrix>(which), out);
  return 1;
}
SLUICE_PEERS_EXPORT int peers_fill_x(const char* shape, int64_t rows, float* out) {
  peers::Shape s;
  if (!peers::parse_shape(shape, &s)) return 0;
  peers::fill_x(s, 0, rows, out);
  return 1;
}
SLUICE_PEERS_EXPORT int peers_route(const char* shape, const char* routing, int64_t call,
                                    int64_t first, int64_t rows, int32_t* ids, float* weights) {
  peers::Shape s;
  peers::Routing r;
  if (!peers::parse_shape(shape, &s) || !peers::parse_routing(routing, &r)) return 0;
  peers::route(s, r, call, first, rows, ids, weights);
  return 1;
}
SLUICE_PEERS_EXPORT int peers_reference(const char* shape, const char* routing, double* out) {
  peers::Shape s;
  peers::Routing r;
  if (!peers::parse_shape(shape, &s) || !peers::parse_routing(routing, &r)) return 0;
  const std::vector<double> y = peers::reference_output(s, r);
  std::copy(y.begin(), y.end(), out);
  return 1;
}
