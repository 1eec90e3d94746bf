// The one MoE layer that every co-process of this folder computes: its shape, f32 weights, inputs
// and routing, all functions of a seed, and its output in f64. Our side and llama.cpp's compile it
// in; kt-kernel's Python loads it as a shared library. Same file, same compiler, same bits.
//
//   y[t] = sum_k w[t,k] * (down_e act(gate_e x[t] + b, up_e x[t] + b) + b),  e = ids[t,k]
//
// A layer has E experts, but only kContents different ones: expert e holds content e % kContents,
// at addresses of its own. Times do not depend on the values, and a layer is ready in seconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace peers {

inline constexpr int64_t kContents = 8;
inline constexpr int64_t kErrorTokens = 16;

enum class Glu { kSilu, kGeluTanh, kSwigluOai };

struct Shape {
  int64_t d = 0, i = 0, e = 0, k = 0;
  Glu glu = Glu::kSilu;
  bool bias() const { return glu == Glu::kSwigluOai; }  // as gpt-oss
  int64_t contents() const { return e < kContents ? e : kContents; }
};
// "D,I,E,K,silu|gelu_tanh|swiglu_oai"; false when it is not that.
bool parse_shape(const std::string& text, Shape* shape);

enum class Matrix { kGate, kUp, kDown };  // [I, D], [I, D], [D, I], row-major
// Gaussian of deviation 1/sqrt(inputs), so that every row of the layer stays near unit scale.
void fill_matrix(const Shape& shape, int64_t content, Matrix which, float* out);
void fill_bias(const Shape& shape, int64_t content, Matrix which, float* out);
// Runs body(i) for i in [0, n) on all cores: making weights and references, nothing that is timed.
void on_all_cores(int64_t n, const std::function<void(int64_t)>& body);

// Rows of x, standard Gaussian; row t is the same in every call.
void fill_x(const Shape& shape, int64_t first, int64_t rows, float* out);

// zipf: an expert of rank r is drawn with weight 1/r, the ranks a fixed permutation. one: all
// tokens choose the same K experts.
enum class Routing { kUniform, kZipf, kOne };
bool parse_routing(const std::string& text, Routing* routing);
// K distinct experts of each of tokens [first, first + rows) of call `call`, and weights that sum
// to 1.
void route(const Shape& shape, Routing routing, int64_t call, int64_t first, int64_t rows,
           int32_t* ids, float* weights);
int64_t distinct_experts(const Shape& shape, const int32_t* ids, size_t count);

// Fills `bytes` at `data`: from the file of that name in the folder $SLUICE_PEERS_CACHE, if it has
// that size, else by `make`, whose result the folder then keeps. Without the folder: by `make`.
void cached(const std::string& name, void* data, size_t bytes, const std::function<void()>& make);
// Part of every name: count up when any value of this file changes.
inline constexpr int kDataVersion = 1;
std::string cache_name(const Shape& shape, const std::string& what);

inline constexpr int64_t kErrorCall = -1;
// The layer in f64 from the f32 weights, for the tokens [0, kErrorTokens) of call kErrorCall.
std::vector<double> reference_output(const Shape& shape, Routing routing);
// |out - reference| / |reference| over those tokens.
double relative_error(const std::vector<double>& reference, const std::vector<float>& out);

}  // namespace peers
