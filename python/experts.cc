// Expert layers: weights packed once, then one call from routed ids to the layer's output.
#include <pybind11/stl.h>

#include <optional>

#include "module.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/pack_fp8.h"
#include "ops/matmul/panels.h"
#include "ops/moe_experts/moe_experts.h"
#include "ops/rms_norm/rms_norm.h"
#include "quant_arrays.h"

namespace sluice::python {
namespace {

class PackedExperts {
 public:
  std::vector<PackedMatrix> gate_up, down;
  std::vector<std::vector<float>> gate_up_bias, down_bias;
  int64_t d = 0, width = 0;
  WeightFormat format = WeightFormat::kBF16;

  size_t bytes() const {
    size_t total = 0;
    for (const auto* side : {&gate_up, &down})
      for (const PackedMatrix& m : *side) total += m.bytes;
    return total;
  }
};

// Those that pack_matrix makes of floats.
WeightFormat format_named(const std::string& name) {
  std::string names;
  for (int i = 0; i < kWeightFormats; ++i) {
    const auto f = static_cast<WeightFormat>(i);
    if (f == WeightFormat::kMXFP4 || f == WeightFormat::kF16) continue;
    if (weight_format_name(f) == name) return f;
    names += names.empty() ? "" : ", ";
    names += weight_format_name(f);
  }
  throw py::value_error("format: expected one of " + names + ", got " + name);
}

DType stored_dtype(const py::array& a, const char* name) {
  if (py::isinstance<py::array_t<float>>(a)) return DType::kF32;
  if (is_bf16(a)) return DType::kBF16;
  if (a.itemsize() == 2 && a.dtype().kind() == 'f') return DType::kF16;
  throw py::type_error(fmt::format(
      "{}: expected float32, float16, bfloat16 or its bits as uint16, got {}", name, dtype_of(a)));
}

// Scales of e4m3 codes [E, N, K]: [E], [E, N] or [E, N/bn, K/bk] with blocks [bn, bk].
struct Fp8Scales {
  Fp8Scales(const py::object& given, const std::optional<std::vector<int64_t>>& block,
            const py::array& w, const char* tensor)
      : name(tensor) {
    if (given.is_none()) return;
    const auto a = given.cast<py::array>();
    const int64_t n = w.shape(1), k = w.shape(2);
    if (block && block->size() == 2 && (*block)[0] > 0 && (*block)[1] > 0)
      block_n = (*block)[0], block_k = (*block)[1], rows = ceil_div(n, block_n);
    else if (block)
      throw py::value_error("block_shape: expected [n, k]");
    else if (a.ndim() == 1)
      block_n = n, block_k = k;
    else
      block_k = k, rows = n;
    cols = ceil_div(k, block_k);
    if (a.ndim() < 1 || a.shape(0) != w.shape(0) || a.size() != w.shape(0) * rows * cols)
      throw py::value_error(fmt::format("{}: scale: expected [E, {}, {}] = [{}, {}, {}]", name,
                                        block ? "N / bn" : "N", block ? "K / bk" : "1", w.shape(0),
                                        rows, cols));
    values = widened(a, name);
  }
  // The scales of rows first, first + step ... of expert e.
  void give(StoredMatrix& m, int64_t e, int64_t first, int64_t step) const {
    m.dtype = DType::kF8E4M3;
    const bool one = rows == 1;
    if (!one && (step != 1 || first % block_n != 0))
      throw py::value_error(fmt::format(
          "{}: scale: rows of gate and up must begin with a block of scales, and follow each other",
          name));
    m.scale = values.data() + (e * rows + (one ? 0 : first / block_n)) * cols;
    m.scale_block_n = one ? m.n : block_n;
    m.scale_block_k = block_k;
    m.scale_cols = cols;
    if (!keeps_fp8_codes(m))
      raise(unimplemented("{}: scale: blocks of {} k: expected a multiple of 128, or K", name,
                          block_k));
  }

  const char* name;
  std::vector<float> values;
  int64_t rows = 1, cols = 1, block_n = 1, block_k = 1;
};

// Expert e of [E, rows, cols], every `step`th row from `first` on.
StoredMatrix part(const py::array& w, const char* name, int64_t e, int64_t first, int64_t step,
                  int64_t rows, const Fp8Scales& scales) {
  StoredMatrix m;
  const bool codes = !scales.values.empty();
  if (codes && w.itemsize() != 1)
    throw py::type_error(fmt::format(
        "{}: expected codes of float8_e4m3fn, or their bits as uint8, got {}", name, dtype_of(w)));
  if (!codes) m.dtype = stored_dtype(w, name);
  m.data = static_cast<const std::byte*>(w.data()) + e * w.strides(0) + first * w.strides(1);
  m.n = rows;
  m.k = w.shape(2);
  m.stride_n = step * w.strides(1) / w.itemsize();
  m.stride_k = w.strides(2) / w.itemsize();
  if (codes) scales.give(m, e, first, step);
  return m;
}

struct GateUp {
  int64_t gate, up, step;  // first rows and distance
};
GateUp gate_up_rows(const std::string& layout, int64_t width) {
  if (layout == "gate_first") return {0, width, 1};
  if (layout == "up_first") return {width, 0, 1};
  if (layout == "interleaved") return {0, 1, 2};
  throw py::value_error("layout: expected gate_first, up_first or interleaved, got " + layout);
}

std::vector<std::vector<float>> rows_of(const py::object& o, const char* name, int64_t experts,
                                        int64_t cols) {
  std::vector<std::vector<float>> rows;
  if (o.is_none()) return rows;
  const auto a = o.cast<py::array>();
  if (a.ndim() != 2 || a.shape(0) != experts || a.shape(1) != cols)
    throw py::value_error(fmt::format("{}: expected [{}, {}]", name, experts, cols));
  const std::span<const float> all = values<float>(a, name);
  for (int64_t e = 0; e < experts; ++e)
    rows.emplace_back(all.begin() + e * cols, all.begin() + (e + 1) * cols);
  return rows;
}

std::shared_ptr<PackedExperts> pack_experts(Machine& machine, const py::array& w1,
                                            const py::array& w2, const std::string& format,
                                            const std::string& layout, const py::object& w1_bias,
                                            const py::object& w2_bias, const py::object& w1_scale,
                                            const py::object& w2_scale,
                                            const std::optional<std::vector<int64_t>>& block) {
  if (w1.ndim() != 3 || w2.ndim() != 3 || w1.shape(0) != w2.shape(0) || w1.shape(1) % 2 != 0 ||
      w1.shape(1) != 2 * w2.shape(2) || w1.shape(2) != w2.shape(1))
    throw py::value_error("w1, w2: expected [E, 2I, D] and [E, D, I]");
  auto packed = std::make_shared<PackedExperts>();
  packed->format = format_named(format);
  packed->d = w1.shape(2);
  packed->width = w2.shape(2);
  if (packed->format != WeightFormat::kFP8 && !(w1_scale.is_none() && w2_scale.is_none()))
    throw py::value_error("w1_scale, w2_scale: belong to format fp8");
  const Fp8Scales up_scales(w1_scale, block, w1, "w1"), down_scales(w2_scale, block, w2, "w2");
  const GateUp rows = gate_up_rows(layout, packed->width);
  packed->gate_up_bias = rows_of(w1_bias, "w1_bias", w1.shape(0), w1.shape(1));
  packed->down_bias = rows_of(w2_bias, "w2_bias", w1.shape(0), w2.shape(1));
  for (std::vector<float>& b : packed->gate_up_bias) {  // ours: gate first
    const std::vector<float> stored = b;
    for (int64_t i = 0; i < packed->width; ++i) {
      b[static_cast<size_t>(i)] = stored[static_cast<size_t>(rows.gate + i * rows.step)];
      b[static_cast<size_t>(packed->width + i)] =
          stored[static_cast<size_t>(rows.up + i * rows.step)];
    }
  }
  std::vector<StoredMatrix> gates, ups, downs;  // read with the interpreter's lock
  for (int64_t e = 0; e < w1.shape(0); ++e) {
    gates.push_back(part(w1, "w1", e, rows.gate, rows.step, packed->width, up_scales));
    ups.push_back(part(w1, "w1", e, rows.up, rows.step, packed->width, up_scales));
    downs.push_back(part(w2, "w2", e, 0, 1, packed->d, down_scales));
  }
  machine.run(0, [&](Runtime& r, Workspace) -> Status {
    const IntPacking how{.pool = &r.pool()};
    for (size_t e = 0; e < gates.size(); ++e) {
      SLUICE_ASSIGN_OR_RETURN(PackedMatrix up,
                              pack_glu(r.device(), gates[e], ups[e], packed->format, how));
      SLUICE_ASSIGN_OR_RETURN(PackedMatrix down,
                              pack_matrix(r.device(), downs[e], packed->format, how));
      packed->gate_up.push_back(std::move(up));
      packed->down.push_back(std::move(down));
    }
    return ok_status();
  });
  return packed;
}

// What a caller may say about the layer beside its tensors.
struct LayerOptions {
  std::string activation, compute, profile, clamp;
  float limit = 7.0f, alpha = 1.702f;
  bool weight_on_input = false;
};

Activation activation_of(const LayerOptions& o) {
  const std::string name = o.activation == "swigluoai" ? "swiglu_oai" : o.activation;
  Activation a{require(parse_activation("fused_experts", name)), o.alpha, o.limit};
  if (o.clamp == "before")
    a.clamp = ActivationClamp::kBefore;
  else if (o.clamp == "after")
    a.clamp = ActivationClamp::kAfter;
  else if (o.clamp != "none")
    throw py::value_error("clamp: expected none, before or after, got " + o.clamp);
  return a;
}

Arith arith_for(const PackedExperts& w, const std::string& compute) {
  if (compute == "fp8" && w.format != WeightFormat::kFP8)
    throw py::value_error(fmt::format("compute: fp8 is for experts of format fp8, these are {}",
                                      weight_format_name(w.format)));
  if (compute == "fp8") return Arith::kFp8G128;
  if (is_int_format(w.format)) return panel_arith(w.format, Compute::kBf16);
  if (compute == "f32") return Arith::kF32Fma;
  if (compute == "bf16") return Arith::kBf16Tile;
  throw py::value_error("compute: expected f32, bf16 or fp8, got " + compute);
}

// The arrays of pointers that the op takes.
struct Pointers {
  explicit Pointers(const PackedExperts& w) {
    for (const PackedMatrix& m : w.gate_up) gate_up.push_back(&m);
    for (const PackedMatrix& m : w.down) down.push_back(&m);
    for (const auto& b : w.gate_up_bias) gate_up_bias.push_back(b.data());
    for (const auto& b : w.down_bias) down_bias.push_back(b.data());
  }
  std::vector<const PackedMatrix*> gate_up, down;
  std::vector<const float*> gate_up_bias, down_bias;
};

py::array_t<float> fused_experts(Machine& machine, const py::array& x, const PackedExperts& w,
                                 const py::array& weights, const py::array& ids,
                                 const LayerOptions& options, const py::object& expert_map) {
  require_rows(ids, "topk_ids", 2);
  const Pointers pointers(w);
  MoeExpertsArgs args;
  args.arith = arith_for(w, options.compute);
  args.x = matrix(x, "hidden_states");
  args.ids = values<int32_t>(ids, "topk_ids");
  args.weights = values<float>(weights, "topk_weights");
  args.k = ids.shape(1);
  if (!expert_map.is_none())
    args.expert_map = values<int32_t>(expert_map.cast<py::array>(), "expert_map");
  args.experts = {.gate_up = pointers.gate_up,
                  .down = pointers.down,
                  .gate_up_bias = pointers.gate_up_bias,
                  .down_bias = pointers.down_bias,
                  .width = w.width,
                  .activation = activation_of(options)};
  args.profile = require(parse_rounding_profile(options.profile));
  if (options.weight_on_input) args.weight_point = WeightPoint::kInput;
  if (args.x.cols != w.d)
    throw py::value_error(fmt::format("hidden_states: D: expected {}, got {}", w.d, args.x.cols));
  py::array_t<float> out({static_cast<py::ssize_t>(args.x.rows), static_cast<py::ssize_t>(w.d)});
  args.out = {out.mutable_data(), args.x.rows, w.d};
  const size_t bytes = moe_experts_workspace_bytes({.max_tokens = args.x.rows,
                                                    .k = args.k,
                                                    .experts = std::ssize(w.down),
                                                    .d = w.d,
                                                    .width = w.width,
                                                    .weight_point = args.weight_point});
  machine.run(bytes, [&](Runtime& r, Workspace scratch) {
    return moe_experts(r.context(), args, scratch);
  });
  return out;
}

// sum over k ascending of y[t, k] (times weights[t, k])
py::array_t<float> moe_sum(Machine& machine, const py::array& y, const py::object& weights,
                           const std::string& profile) {
  if (y.ndim() != 3) throw py::value_error("input: expected [T, K, D]");
  const int64_t t = y.shape(0), k = y.shape(1), d = y.shape(2);
  std::vector<float> ones;
  MoeCombineArgs args;
  args.y = {contiguous<float>(y, "input"), t * k, d};
  args.k = k;
  args.rounding = require(parse_rounding_profile(profile)).combine;
  if (weights.is_none()) {
    ones.assign(static_cast<size_t>(t * k), 1.0f);
    args.weights = ones;
  } else {
    args.weights = values<float>(weights.cast<py::array>(), "topk_weights");
  }
  std::vector<int32_t> rows(static_cast<size_t>(t * k));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  args.inverse = rows;
  py::array_t<float> out({static_cast<py::ssize_t>(t), static_cast<py::ssize_t>(d)});
  args.out = {out.mutable_data(), t, d};
  machine.run(0, [&](Runtime& r, Workspace) { return moe_combine(r.context(), args); });
  return out;
}

py::array_t<float> norm(Machine& machine, const py::array& x, const py::object& weight, float eps) {
  RmsNormArgs args;
  args.x = matrix(x, "x");
  args.eps = eps;
  if (!weight.is_none()) {
    const auto w = weight.cast<py::array>();
    if (w.size() != args.x.cols) throw py::value_error("weight: expected [D]");
    args.weight = contiguous<float>(w, "weight");
  }
  py::array_t<float> out(
      {static_cast<py::ssize_t>(args.x.rows), static_cast<py::ssize_t>(args.x.cols)});
  args.out = {out.mutable_data(), args.x.rows, args.x.cols};
  machine.run(0, [&](Runtime& r, Workspace) { return rms_norm(r.context(), args); });
  return out;
}

void add_packing(py::module_& m, Machine& machine) {
  py::class_<PackedExperts, std::shared_ptr<PackedExperts>>(
      m, "PackedExperts", "The weights of an expert layer in the form that the kernels stream.")
      .def_property_readonly("num_experts", [](const PackedExperts& w) { return w.down.size(); })
      .def_property_readonly("nbytes", &PackedExperts::bytes)
      .def_property_readonly("format", [](const PackedExperts& w) {
        return std::string(weight_format_name(w.format));
      });
  m.def(
      "pack_experts",
      [&](const py::array& w1, const py::array& w2, const std::string& format,
          const std::string& layout, const py::object& b1, const py::object& b2,
          const py::object& s1, const py::object& s2,
          const std::optional<std::vector<int64_t>>& block) {
        return pack_experts(machine, w1, w2, format, layout, b1, b2, s1, s2, block);
      },
      py::arg("w1"), py::arg("w2"), py::kw_only(), py::arg("format") = "bf16",
      py::arg("layout") = "gate_first", py::arg("w1_bias") = py::none(),
      py::arg("w2_bias") = py::none(), py::arg("w1_scale") = py::none(),
      py::arg("w2_scale") = py::none(), py::arg("block_shape") = py::none(),
      "w1 [E, 2I, D], w2 [E, D, I], float32, float16 or bfloat16, any strides, to\n"
      "format f32, bf16, fp8, int8, int4 or one of GGUF's: q8_0, q4_0, q5_0, q5_1, q4_k, q5_k,\n"
      "q6_k, iq4_nl; layout of w1's rows: gate_first, up_first, interleaved.\n"
      "fp8 with w1_scale and w2_scale ([E], [E, N], or one for each block_shape): codes of\n"
      "float8_e4m3fn (or uint8), which are kept.");
}

}  // namespace

void add_experts(py::module_& m, Machine& machine) {
  add_packing(m, machine);
  m.def(
      "fused_experts",
      [&](const py::array& x, const PackedExperts& w, const py::array& weights,
          const py::array& ids, const std::string& activation, const std::string& compute,
          const py::object& map, const std::string& profile, bool weight_on_input,
          const std::string& clamp, float limit, float alpha) {
        return fused_experts(machine, x, w, weights, ids,
                             {activation, compute, profile, clamp, limit, alpha, weight_on_input},
                             map);
      },
      py::arg("hidden_states"), py::arg("experts"), py::arg("topk_weights"), py::arg("topk_ids"),
      py::kw_only(), py::arg("activation") = "silu", py::arg("compute") = "bf16",
      py::arg("expert_map") = py::none(), py::arg("profile") = "f32",
      py::arg("apply_router_weight_on_input") = false, py::arg("clamp") = "none",
      py::arg("limit") = 7.0f, py::arg("alpha") = 1.702f,
      "sum over k of weights[t, k] * down(act(gate(x), up(x))) -> [T, D] f32. A token's bits do\n"
      "not depend on the other tokens, on threads or on the instruction set.\n"
      "activation silu, gelu_tanh, gelu_erf or swiglu_oai (limit, alpha); clamp none, before or\n"
      "after it at limit; profile f32, hf, aiter, max, tpu, mojo, mojo_quant or sglang: where\n"
      "bf16 roundings stand. compute: rows of the products in bf16, in f32, or, of experts of\n"
      "format fp8, in fp8 with a scale for each 128 of k (arith fp8_g128).\n"
      "apply_router_weight_on_input: down(act(gate(w * x), up(w * x))).");
  m.def(
      "moe_sum",
      [&](const py::array& y, const py::object& weights, const std::string& profile) {
        return moe_sum(machine, y, weights, profile);
      },
      py::arg("input"), py::arg("topk_weights") = py::none(), py::kw_only(),
      py::arg("profile") = "f32",
      "[T, K, D] -> [T, D], k ascending, one f32 accumulator; profile as in fused_experts.");
  m.def(
      "rms_norm",
      [&](const py::array& x, const py::object& weight, float eps) {
        return norm(machine, x, weight, eps);
      },
      py::arg("x"), py::arg("weight") = py::none(), py::arg("eps") = 1e-6f,
      "x / sqrt(mean(x^2) + eps) * weight over the last dimension of [T, D].");
}

}  // namespace sluice::python
