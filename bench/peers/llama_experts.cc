// llama.cpp's side: the layer of layer_data.h as the graph that its build of a MoE block makes, on
// ggml's CPU backend through its public headers, as a co-process (coprocess.h). Weights lie where a
// model load would place them (the first buffer type that takes the product), or in --buffer NAME.
//
// --check-tiles 1 instead: the one dense product that its tile path does take, in its AMX buffer
// beside the plain one; prints the relative difference. It crashes where the build is not right.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "coprocess.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace peers {
namespace {

struct ContextDeleter {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
using Context = std::unique_ptr<ggml_context, ContextDeleter>;
Context make_context(size_t tensors, size_t graphs = 0) {
  const size_t bytes = ggml_tensor_overhead() * tensors +
                       graphs * ggml_graph_overhead_custom(GGML_DEFAULT_GRAPH_SIZE, false);
  return Context(ggml_init({bytes, nullptr, true}));
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return std::tolower(c); });
  return text;
}
// A type by the name that ggml gives it, "q4_0" or "bf16".
bool find_type(const std::string& name, ggml_type* type) {
  for (int t = 0; t < GGML_TYPE_COUNT; ++t) {
    *type = static_cast<ggml_type>(t);
    const char* known = ggml_type_name(*type);
    if (known != nullptr && ggml_blck_size(*type) > 0 && lower(known) == lower(name)) return true;
  }
  return false;
}

std::vector<ggml_backend_buffer_type_t> buffer_types() {
  std::vector<ggml_backend_buffer_type_t> found;
  ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  const auto extra =
      reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
          ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
  if (extra != nullptr)
    for (auto* type = extra(device); type != nullptr && *type != nullptr; ++type)
      found.push_back(*type);
  found.push_back(ggml_backend_dev_buffer_type(device));
  return found;
}

// Would the backend run `product` (whose weights are w) from this kind of buffer?
bool takes(ggml_backend_buffer_type_t type, ggml_tensor* w, ggml_tensor* product) {
  w->buffer = ggml_backend_buft_alloc_buffer(type, 0);
  const bool yes =
      ggml_backend_dev_supports_op(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), product);
  ggml_backend_buffer_free(w->buffer);
  w->buffer = nullptr;
  return yes;
}

std::string features() {
  ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device);
  const auto get = reinterpret_cast<ggml_backend_get_features_t>(
      ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features"));
  std::string out;
  if (get != nullptr)
    for (auto* f = get(reg); f->name != nullptr; ++f)
      if (std::string(f->value) != "0") out += (out.empty() ? "" : " ") + std::string(f->name);
  return out;
}

struct Weights {
  ggml_tensor *gate, *up, *down;
  ggml_backend_buffer_t buffer;
};
struct Graph {
  ggml_cgraph* nodes;
  ggml_tensor *x, *ids, *weights, *out;
};

class Llama final : public Side {
 public:
  std::string load(const Options& options) {
    o_ = options;
    s_ = options.shape;
    if (!find_type(options.weights, &type_)) return "ggml knows no type " + options.weights;
    const auto block = ggml_blck_size(type_);
    if (s_.d % block != 0 || s_.i % block != 0)
      return options.weights + " has blocks of " + std::to_string(block) +
             ", which do not divide D " + std::to_string(s_.d) + " and I " + std::to_string(s_.i);
    backend_ = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend_, options.threads);
    if (const std::string why = choose_buffer(); !why.empty()) return why;
    const size_t layer = 3 * static_cast<size_t>(s_.e) * matrix_bytes();
    const auto copies = std::max<int64_t>(
        1, static_cast<int64_t>(std::ceil(o_.bytes / static_cast<double>(layer))));
    weights_context_ = make_context(static_cast<size_t>(3 * copies + 3));
    quantise();
    for (int64_t c = 0; c < copies; ++c)
      if (const std::string why = add_copy(); !why.empty()) return why;
    make_biases();
    host_.clear();
    host_.shrink_to_fit();
    return "";
  }

  std::string describe() const {
    return "{\"type\": " + quoted(ggml_type_name(type_)) +
           ", \"buffer\": " + quoted(ggml_backend_buft_name(buffer_type_)) +
           ", \"version\": " + quoted(std::string("ggml ") + ggml_version()) +
           ", \"flags\": " + quoted(SLUICE_PEERS_FLAGS) + ", \"isa\": " + quoted(features()) +
           ", \"threads\": " + std::to_string(o_.threads) +
           ", \"copies\": " + std::to_string(copies()) +
           ", \"expert_bytes\": " + std::to_string(3 * matrix_bytes()) + "}";
  }

  std::string prepare(int64_t m) override {
    graphs_.clear();
    graph_contexts_.clear();
    if (allocator_ != nullptr) ggml_gallocr_free(allocator_);
    allocator_ = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend_));
    // One graph for each copy of the weights; they share the memory of their activations.
    for (const Weights& w : copies_) {
      graphs_.push_back(build(w, m));
      if (!ggml_gallocr_alloc_graph(allocator_, graphs_.back().nodes))
        return "no memory for a graph";
    }
    return "";
  }

  double call(int64_t m, int64_t copy, const float* x, const int32_t* ids, const float* weights,
              float* out) override {
    const Graph& g = graphs_[static_cast<size_t>(copy)];
    ggml_backend_tensor_set(g.x, x, 0, ggml_nbytes(g.x));
    ggml_backend_tensor_set(g.ids, ids, 0, ggml_nbytes(g.ids));
    ggml_backend_tensor_set(g.weights, weights, 0, ggml_nbytes(g.weights));
    const double start = microseconds();
    const ggml_status status = ggml_backend_graph_compute(backend_, g.nodes);
    const double took = microseconds() - start;
    if (status != GGML_STATUS_SUCCESS) {
      fail(ggml_status_to_string(status));
      std::exit(1);
    }
    ggml_backend_tensor_get(g.out, out, 0, ggml_nbytes(g.out));
    return took;
  }

  int64_t copies() const override { return static_cast<int64_t>(copies_.size()); }

 private:
  size_t matrix_bytes() const {
    return ggml_row_size(type_, s_.d) * static_cast<size_t>(s_.i);  // as [D, I] and as [I, D]
  }

  std::string choose_buffer() {
    Context c = make_context(8);
    ggml_tensor* w = ggml_new_tensor_3d(c.get(), type_, s_.d, s_.i, s_.e);
    ggml_tensor* x = ggml_new_tensor_3d(c.get(), GGML_TYPE_F32, s_.d, s_.k, 512);
    ggml_tensor* ids = ggml_new_tensor_2d(c.get(), GGML_TYPE_I32, s_.k, 512);
    ggml_tensor* product = ggml_mul_mat_id(c.get(), w, x, ids);
    std::string names;
    for (ggml_backend_buffer_type_t type : buffer_types()) {
      const std::string name = ggml_backend_buft_name(type);
      names += " " + name;
      if (!o_.buffer.empty() && o_.buffer != name) continue;
      if (!takes(type, w, product)) continue;
      buffer_type_ = type;
      return "";
    }
    return "no buffer type takes " + o_.weights + " " + o_.buffer + " (there are:" + names + ")";
  }

  // The contents of all experts, [gate | up | down] of all E each: what a file would hold.
  void quantise() {
    const size_t matrix = matrix_bytes(), all = matrix * static_cast<size_t>(s_.e);
    host_.resize(3 * all);
    ggml_quantize_init(type_);
    on_all_cores(3 * s_.contents(), [&](int64_t job) {
      const int64_t content = job / 3;
      const auto which = static_cast<Matrix>(job % 3);
      const int64_t rows = which == Matrix::kDown ? s_.d : s_.i;
      char* first = host_.data() + all * static_cast<size_t>(job % 3);
      char* to = first + matrix * static_cast<size_t>(content);
      const std::string name = std::string("ggml-") + ggml_version() + "-" + ggml_type_name(type_) +
                               "-" + std::to_string(job);
      cached(cache_name(s_, name), to, matrix, [&] {
        std::vector<float> w(static_cast<size_t>(s_.d * s_.i));
        fill_matrix(s_, content, which, w.data());
        ggml_quantize_chunk(type_, w.data(), to, 0, rows, s_.d * s_.i / rows, nullptr);
      });
      for (int64_t e = content + kContents; e < s_.e; e += kContents)
        std::memcpy(first + matrix * static_cast<size_t>(e), to, matrix);
    });
  }

  std::string add_copy() {
    ggml_context* c = weights_context_.get();
    Weights w{};
    w.gate = ggml_new_tensor_3d(c, type_, s_.d, s_.i, s_.e);
    w.up = ggml_new_tensor_3d(c, type_, s_.d, s_.i, s_.e);
    w.down = ggml_new_tensor_3d(c, type_, s_.i, s_.d, s_.e);
    w.buffer = ggml_backend_alloc_ctx_tensors_from_buft(c, buffer_type_);
    if (w.buffer == nullptr) return "no memory for the weights";
    ggml_backend_buffer_set_usage(w.buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    const size_t all = matrix_bytes() * static_cast<size_t>(s_.e);
    ggml_backend_tensor_set(w.gate, host_.data(), 0, all);
    ggml_backend_tensor_set(w.up, host_.data() + all, 0, all);
    ggml_backend_tensor_set(w.down, host_.data() + 2 * all, 0, all);
    copies_.push_back(w);
    return "";
  }

  void make_biases() {
    if (!s_.bias()) return;
    ggml_context* c = weights_context_.get();
    for (int i = 0; i < 3; ++i)
      bias_[i] = ggml_new_tensor_2d(c, GGML_TYPE_F32, i == 2 ? s_.d : s_.i, s_.e);
    ggml_backend_alloc_ctx_tensors(c, backend_);
    for (int i = 0; i < 3; ++i) {
      const auto row = static_cast<size_t>(bias_[i]->ne[0]);
      std::vector<float> b(row);
      for (int64_t e = 0; e < s_.e; ++e) {
        fill_bias(s_, e % kContents, static_cast<Matrix>(i), b.data());
        ggml_backend_tensor_set(bias_[i], b.data(), static_cast<size_t>(e) * row * 4, row * 4);
      }
    }
  }

  Graph build(const Weights& w, int64_t m) {
    ggml_context* c = graph_contexts_.emplace_back(make_context(64 + 2 * 64, 1)).get();
    Graph g{};
    g.nodes = ggml_new_graph(c);
    g.x = ggml_new_tensor_3d(c, GGML_TYPE_F32, s_.d, 1, m);
    g.ids = ggml_new_tensor_2d(c, GGML_TYPE_I32, s_.k, m);
    g.weights = ggml_new_tensor_3d(c, GGML_TYPE_F32, 1, s_.k, m);
    for (ggml_tensor* input : {g.x, g.ids, g.weights}) ggml_set_input(input);
    const auto product = [&](ggml_tensor* weights, ggml_tensor* in, ggml_tensor* bias) {
      ggml_tensor* y = ggml_mul_mat_id(c, weights, in, g.ids);
      return bias == nullptr ? y : ggml_add_id(c, y, bias, g.ids);
    };
    ggml_tensor* up = product(w.up, g.x, bias_[1]);
    ggml_tensor* gate = product(w.gate, g.x, bias_[0]);
    ggml_tensor* hidden = s_.glu == Glu::kSilu       ? ggml_swiglu_split(c, gate, up)
                          : s_.glu == Glu::kGeluTanh ? ggml_geglu_split(c, gate, up)
                                                     : ggml_swiglu_oai(c, gate, up, 1.702f, 7.0f);
    ggml_tensor* rows = ggml_mul(c, product(w.down, hidden, bias_[2]), g.weights);
    ggml_build_forward_expand(g.nodes, rows);
    for (int64_t k = 0; k < s_.k; ++k) {
      ggml_tensor* row =
          ggml_view_2d(c, rows, s_.d, m, rows->nb[2], static_cast<size_t>(k) * rows->nb[1]);
      g.out = k == 0 ? row : ggml_add(c, g.out, row);
    }
    if (s_.k == 1) g.out = ggml_cont(c, g.out);
    ggml_set_output(g.out);
    ggml_build_forward_expand(g.nodes, g.out);
    return g;
  }

  Options o_;
  Shape s_;
  ggml_type type_ = GGML_TYPE_COUNT;
  ggml_backend_t backend_ = nullptr;
  ggml_backend_buffer_type_t buffer_type_ = nullptr;
  ggml_gallocr_t allocator_ = nullptr;
  Context weights_context_;
  std::vector<char> host_;
  std::vector<Weights> copies_;
  ggml_tensor* bias_[3] = {};
  std::vector<Context> graph_contexts_;
  std::vector<Graph> graphs_;
};

// y = w x in one buffer type; empty when the type does not take the product.
std::vector<float> dense_product(ggml_type type, ggml_backend_buffer_type_t buffer) {
  constexpr int64_t kIn = 2048, kOut = 2048, kRows = 64;
  const Shape shape{kIn, kOut, 1, 1, Glu::kSilu};
  std::vector<float> w(kIn * kOut), x(kIn * kRows), y(kOut * kRows);
  fill_matrix(shape, 0, Matrix::kGate, w.data());
  fill_x(shape, 0, kRows, x.data());
  std::vector<char> quantised(ggml_row_size(type, kIn) * kOut);
  ggml_quantize_chunk(type, w.data(), quantised.data(), 0, kOut, kIn, nullptr);
  Context weights = make_context(2), rest = make_context(8, 1);
  ggml_tensor* a = ggml_new_tensor_2d(weights.get(), type, kIn, kOut);
  ggml_tensor* b = ggml_new_tensor_2d(rest.get(), GGML_TYPE_F32, kIn, kRows);
  ggml_tensor* product = ggml_mul_mat(rest.get(), a, b);
  if (!takes(buffer, a, product)) return {};
  ggml_backend_t backend = ggml_backend_cpu_init();
  ggml_backend_buffer_t a_memory = ggml_backend_alloc_ctx_tensors_from_buft(weights.get(), buffer);
  ggml_backend_buffer_t memory = ggml_backend_alloc_ctx_tensors(rest.get(), backend);
  ggml_backend_tensor_set(a, quantised.data(), 0, quantised.size());
  ggml_backend_tensor_set(b, x.data(), 0, x.size() * 4);
  ggml_cgraph* graph = ggml_new_graph(rest.get());
  ggml_build_forward_expand(graph, product);
  ggml_backend_graph_compute(backend, graph);
  ggml_backend_tensor_get(product, y.data(), 0, y.size() * 4);
  ggml_backend_buffer_free(a_memory);
  ggml_backend_buffer_free(memory);
  ggml_backend_free(backend);
  return y;
}

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", v);
  return text;
}

int check_tiles() {
  std::string said;
  for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_Q4_K}) {
    const auto types = buffer_types();
    const std::vector<float> plain = dense_product(type, types.back());
    for (ggml_backend_buffer_type_t buffer : types) {
      if (std::string(ggml_backend_buft_name(buffer)) != "AMX") continue;
      const std::vector<float> tiles = dense_product(type, buffer);
      if (tiles.empty()) continue;
      const double error = relative_error(std::vector<double>(plain.begin(), plain.end()), tiles);
      said += (said.empty() ? "" : ", ") + quoted(ggml_type_name(type)) + ": " + number(error);
    }
  }
  say("{\"tiles\": {" + said + "}, \"isa\": " + quoted(features()) + "}");
  return 0;
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--check-tiles") return peers::check_tiles();
  peers::Options options;
  if (!peers::parse_options(argc, argv, &options)) return peers::fail("bad options");
  peers::Llama side;
  if (const std::string why = side.load(options); !why.empty()) return peers::fail(why);
  peers::say(side.describe());
  return peers::Loop(options, side).run();
}
