// Expert layers: one call from routed ids to the layer's output, over packed weights.
#include <pybind11/stl.h>

#include "module.h"
#include "ops/matmul/panels.h"
#include "ops/moe_experts/moe_experts.h"
#include "ops/rms_norm/rms_norm.h"
#include "packed_experts.h"

namespace sluice::python {
namespace {

// What a caller may say about the layer beside its tensors.
struct LayerOptions {
  std::string activation, compute, mode, profile, clamp;
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

// Of both products: by format, mode and compute, as for a model.
Arith arith_for(const PackedExperts& w, const LayerOptions& o) {
  const bool wide = w.format == WeightFormat::kF32;
  if (!o.compute.empty() && o.compute != "f32" && o.compute != "bf16")
    throw py::value_error("compute: expected f32 or bf16, got " + o.compute);
  if (wide && o.compute == "bf16")
    throw py::value_error("compute: f32 weights are multiplied in f32, got bf16");
  const Compute compute = wide || o.compute == "f32" ? Compute::kF32 : Compute::kBf16;
  std::string names;
  for (int i = 0; i < kModes; ++i) {
    const auto mode = static_cast<Mode>(i);
    if (!has_mode(w.format, mode)) continue;
    if (o.mode == mode_name(mode)) {
      const Arith arith = panel_arith(w.format, compute, mode);
      if (!quantizes_x(arith) || o.compute != "f32") return arith;
      throw py::value_error(fmt::format(
          "compute: rows of {} weights are quantised ({}), got f32; mode=\"a16\" leaves the choice",
          weight_format_name(w.format), arith_name(arith)));
    }
    names += names.empty() ? "" : ", ";
    names += mode_name(mode);
  }
  throw py::value_error(fmt::format("mode: {}: expected one of {}, got {}",
                                    weight_format_name(w.format), names, o.mode));
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
  require_same_shape(weights, "topk_weights", ids, "topk_ids");
  const Pointers pointers(w);
  MoeExpertsArgs args;
  args.arith = arith_for(w, options);
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

}  // namespace

void add_experts(py::module_& m, Machine& machine) {
  add_pack_experts(m, machine);
  m.def(
      "fused_experts",
      [&](const py::array& x, const PackedExperts& w, const py::array& weights,
          const py::array& ids, const std::string& activation, const std::string& compute,
          const std::string& mode, const py::object& map, const std::string& profile,
          bool weight_on_input, const std::string& clamp, float limit, float alpha) {
        return fused_experts(
            machine, x, w, weights, ids,
            {activation, compute, mode, profile, clamp, limit, alpha, weight_on_input}, map);
      },
      py::arg("hidden_states"), py::arg("experts"), py::arg("topk_weights"), py::arg("topk_ids"),
      py::kw_only(), py::arg("activation") = "silu", py::arg("compute") = "",
      py::arg("mode") = "default", py::arg("expert_map") = py::none(), py::arg("profile") = "f32",
      py::arg("apply_router_weight_on_input") = false, py::arg("clamp") = "none",
      py::arg("limit") = 7.0f, py::arg("alpha") = 1.702f,
      "sum over k of weights[t, k] * down(act(gate(x), up(x))) -> [T, D] f32. A token's bits do\n"
      "not depend on the other tokens, on threads or on the instruction set.\n"
      "compute bf16 or f32: rows of the products (bf16 unless weights are f32); mode default, int, "
      "a8g32, a16 or fp8: what\n"
      "low-bit weights are multiplied with (int4 and int8 have int, GGUF's formats a8g32, mxfp4\n"
      "and fp8 a16 unless said otherwise; fp8 quantises rows with a scale for each 128 of k).\n"
      "activation silu, gelu_tanh, gelu_erf or swiglu_oai (limit, alpha); clamp none, before or\n"
      "after it at limit; profile f32, hf, aiter, max, tpu, mojo, mojo_quant or sglang: where\n"
      "bf16 roundings stand. apply_router_weight_on_input: down(act(gate(w * x), up(w * x))).");
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
