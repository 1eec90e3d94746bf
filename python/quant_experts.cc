// Expert layers whose weights and activations are integers, or fp8.
#include <pybind11/stl.h>

#include <optional>

#include "module.h"
#include "ops/moe_combine/moe_combine.h"
#include "ops/moe_sort/moe_sort.h"
#include "ops/quant_experts/quant_experts.h"
#include "quant_arrays.h"

namespace sluice::python {
namespace {

class QuantizedExperts {
 public:
  std::vector<QuantWeights> up, down;
  int64_t d = 0, width = 0;

  int64_t experts() const { return static_cast<int64_t>(up.size()); }
  size_t bytes() const {
    size_t total = 0;
    for (const auto* side : {&up, &down})
      for (const QuantWeights& w : *side) total += w.bytes;
    return total;
  }
};

// `stored` with the codes and scales of each expert in turn.
std::vector<QuantWeights> pack_all(Machine& machine, StoredQuant stored,
                                   std::span<const std::byte> codes, std::span<const float> scales,
                                   size_t experts) {
  std::vector<QuantWeights> packed(experts);
  const size_t each = codes.size() / experts, scales_each = scales.size() / experts;
  machine.run(0, [&](Runtime&, Workspace) -> Status {
    for (size_t e = 0; e < experts; ++e) {
      stored.codes = codes.subspan(e * each, each);
      stored.scales = scales.subspan(e * scales_each, scales_each);
      SLUICE_ASSIGN_OR_RETURN(packed[e], pack_quant_weights(machine.storage(), stored));
    }
    return ok_status();
  });
  return packed;
}

// The matrices [N, K] of all experts.
std::vector<QuantWeights> pack_side(Machine& machine, const py::array& w, const py::array& scale,
                                    const std::string& layout_name, int64_t group,
                                    const char* name) {
  if (w.ndim() != 3)
    throw py::value_error(fmt::format("{}: expected [E, N, K], packed in its layout", name));
  const std::span<const std::byte> codes = bytes_of(w, name);
  const std::vector<float> scales = widened(scale, name);
  StoredQuant stored;
  stored.layout = layout_named(layout_name);
  stored.n = w.shape(1) * (stored.layout == QuantLayout::kInt4RowPairs ? 2 : 1);
  stored.k = w.shape(2) * (stored.layout == QuantLayout::kInt4KPairs ? 2 : 1);
  stored.group = group == -1 ? 0 : group;
  const auto experts = static_cast<size_t>(w.shape(0));
  if (experts == 0 || scale.ndim() < 2 || scale.shape(0) != w.shape(0) ||
      scale.shape(1) != stored.n)
    throw py::value_error(
        fmt::format("{}: scale: expected [E, N, groups] = [{}, {}, ...]", name, experts, stored.n));
  return pack_all(machine, stored, codes, scales, experts);
}

// [E] matrices of e4m3 codes, scales of tensors, rows or blocks.
std::vector<QuantWeights> pack_fp8_side(Machine& machine, const py::array& w,
                                        const py::array& scale,
                                        const std::optional<std::pair<int64_t, int64_t>>& block,
                                        int64_t group, const char* name) {
  if (w.ndim() != 3)
    throw py::value_error(fmt::format("{}: expected [E, N, K] codes of float8_e4m3fn", name));
  const std::span<const std::byte> codes = bytes_of(w, name);
  const std::vector<float> scales = widened(scale, name);
  const auto experts = static_cast<size_t>(w.shape(0));
  StoredQuant stored;
  stored.layout = QuantLayout::kFp8;
  stored.n = w.shape(1);
  stored.k = w.shape(2);
  stored.group = group == -1 ? 0 : group;
  if (block) {
    stored.scale_block_n = block->first;
    stored.scale_block_k = block->second;
  } else if (scale.ndim() == 1) {
    stored.scale_block_n = 0;  // one of the tensor
  }
  if (experts == 0 || scale.ndim() < 1 || scale.shape(0) != w.shape(0))
    throw py::value_error(fmt::format("{}: scale: expected [E, ...] = [{}, ...]", name, experts));
  return pack_all(machine, stored, codes, scales, experts);
}

std::vector<const QuantWeights*> pointers(const std::vector<QuantWeights>& all) {
  std::vector<const QuantWeights*> out;
  for (const QuantWeights& w : all) out.push_back(&w);
  return out;
}

RoundTo round_named(const std::string& name) {
  if (name == "float32") return RoundTo::kF32;
  if (name == "bfloat16") return RoundTo::kBF16;
  if (name == "float16") return RoundTo::kF16;
  throw py::value_error("dtype: expected float32, bfloat16 or float16, got " + name);
}

// [T] or [T, G], any strides; [1, 1] of a tensor.
RowScales row_scales(const py::array& a, int64_t rows, const QuantWeights& w) {
  if (!py::isinstance<py::array_t<float>>(a)) throw py::type_error("x_scale: expected float32");
  const auto* data = static_cast<const float*>(a.data());
  const auto stride = [&a](int i) { return static_cast<int64_t>(a.strides(i)) / 4; };
  if (a.ndim() == 2 && a.size() == 1) return {data, 0, 0};
  if (a.ndim() == 1 && a.shape(0) == rows) return {data, stride(0), 0};
  const int64_t groups = ceil_div(w.k, w.group);
  if (a.ndim() != 2 || a.shape(0) != rows || (a.shape(1) != 1 && a.shape(1) != groups))
    throw py::value_error(
        fmt::format("x_scale: expected [T] or [T, groups] = [{}, {}]", rows, groups));
  return {data, stride(0), a.shape(1) == 1 ? 0 : stride(1)};
}

py::array_t<float> quant_group_gemm(Machine& machine, const py::array& x, const py::array& x_scale,
                                    const py::object& counts, const QuantizedExperts& w,
                                    const std::string& side, const std::string& dtype) {
  require_rows(x, "x", 2);
  if (side != "up" && side != "down") throw py::value_error("side: expected up or down");
  const std::vector<const QuantWeights*> experts = pointers(side == "up" ? w.up : w.down);
  const QuantWeights& first = *experts.front();
  QuantMatmulArgs args;
  const std::span<const std::byte> codes = bytes_of(x, "x");
  const bool is_signed = x.dtype().kind() == 'i', fp8 = first.codes == QuantCodes::kFp8;
  if (is_signed == fp8)
    throw py::type_error(fmt::format("x: expected {}", fp8 ? "uint8, the bits of e4m3" : "int8"));
  args.x = {reinterpret_cast<const int8_t*>(codes.data()), x.shape(0), x.shape(1), x.shape(1)};
  args.x_scale = row_scales(x_scale, x.shape(0), first);
  args.counts = counts_of(counts);
  args.experts = experts;
  args.round = round_named(dtype);
  py::array_t<float> out({static_cast<py::ssize_t>(x.shape(0)), static_cast<py::ssize_t>(first.n)});
  args.out = {out.mutable_data(), x.shape(0), first.n, first.n};
  const size_t bytes =
      quant_matmul_workspace_bytes(x.shape(0), w.experts(), first.k, first.group, first.codes);
  machine.run(bytes, [&](Runtime& r, Workspace scratch) {
    return quant_matmul(r.context(), args, scratch);
  });
  return out;
}

// Unless told: fp8 with scales for the groups that the weights have, integers by row.
bool scales_by_group(const QuantizedExperts& w, std::optional<bool> given) {
  const QuantWeights& up = w.up.front();
  return given.value_or(up.codes == QuantCodes::kFp8 && up.group < up.k);
}

QuantExpertsShape shape_of(const QuantizedExperts& w, int64_t rows, bool group_scales) {
  const QuantWeights &up = w.up.front(), &down = w.down.front();
  return {rows,       w.experts(), w.d,        w.width,     up.group,
          down.group, up.codes,    down.codes, group_scales};
}

// The layer's part of the arguments; `up` and `down` are what pointers() gives for it.
QuantExpertsArgs layer_args(const QuantizedExperts& w, std::span<const QuantWeights* const> up,
                            std::span<const QuantWeights* const> down, const py::object& smooth_up,
                            const py::object& smooth_down, const std::string& dtype,
                            bool group_scales) {
  QuantExpertsArgs args;
  args.up = up;
  args.down = down;
  args.inv_smooth_up = smoothing(smooth_up, "inv_smooth_up", w.experts(), w.d);
  args.inv_smooth_down = smoothing(smooth_down, "inv_smooth_down", w.experts(), w.width);
  args.group_scales = group_scales;
  args.round = round_named(dtype);
  return args;
}

py::array_t<float> run_quant_experts(Machine& machine, const py::array& x, const py::object& counts,
                                     const QuantizedExperts& w, const py::object& smooth_up,
                                     const py::object& smooth_down, const std::string& dtype,
                                     bool group_scales) {
  const Rows rows(x, "x");
  const auto up = pointers(w.up), down = pointers(w.down);
  QuantExpertsArgs args = layer_args(w, up, down, smooth_up, smooth_down, dtype, group_scales);
  args.x = rows.wide;
  args.x_bf16 = rows.half;
  args.counts = counts_of(counts);
  py::array_t<float> out({static_cast<py::ssize_t>(rows.rows), static_cast<py::ssize_t>(w.d)});
  args.out = {out.mutable_data(), rows.rows, w.d, w.d};
  machine.run(
      quant_experts_workspace_bytes(shape_of(w, rows.rows, group_scales)),
      [&](Runtime& r, Workspace scratch) { return quant_experts(r.context(), args, scratch); });
  return out;
}

// Sorts, gathers, runs the experts, combines.
Status routed(const ExecContext& context, const Rows& x, std::span<const int32_t> ids,
              std::span<const float> weights, int64_t k, QuantExpertsArgs args, Workspace scratch,
              MatrixF32 out) {
  const size_t pairs = ids.size(), experts = args.up.size();
  std::vector<int32_t> starts(experts + 1), source(pairs), inverse(pairs), counts(experts);
  MoeSortArgs sort;
  sort.ids = ids;
  sort.k = k;
  sort.experts = static_cast<int64_t>(experts);
  sort.starts = starts;
  sort.source = source;
  sort.inverse = inverse;
  sort.counts = counts;
  SLUICE_RETURN_IF_ERROR(moe_sort(context, sort));
  const int64_t live = starts.back(), d = x.cols;
  std::vector<float> rows(static_cast<size_t>(live * d)), y(rows.size());
  for (int64_t i = 0; i < live; ++i)
    for (int64_t c = 0; c < d; ++c) {
      const int64_t t = source[static_cast<size_t>(i)];
      rows[static_cast<size_t>(i * d + c)] =
          x.wide.data != nullptr ? x.wide.row(t)[c] : static_cast<float>(x.half.row(t)[c]);
    }
  args.x = {rows.data(), live, d};
  args.x_bf16 = {};
  args.counts = counts;
  args.out = {y.data(), live, d};
  SLUICE_RETURN_IF_ERROR(quant_experts(context, args, scratch));
  MoeCombineArgs combine;
  combine.y = {y.data(), live, d};
  combine.inverse = inverse;
  combine.weights = weights;
  combine.k = k;
  combine.out = out;
  return moe_combine(context, combine);
}

py::array_t<float> fused_quant_experts(Machine& machine, const py::array& x,
                                       const QuantizedExperts& w, const py::array& weights,
                                       const py::array& ids, const py::object& smooth_up,
                                       const py::object& smooth_down, const std::string& dtype,
                                       bool group_scales) {
  const Rows rows(x, "hidden_states");
  require_rows(ids, "topk_ids", 2);
  require_same_shape(weights, "topk_weights", ids, "topk_ids");
  const std::span<const int32_t> all_ids = values<int32_t>(ids, "topk_ids");
  const std::span<const float> all_weights = values<float>(weights, "topk_weights");
  const int64_t k = ids.shape(1);
  if (rows.cols != w.d)
    throw py::value_error(fmt::format("hidden_states: D: expected {}, got {}", w.d, rows.cols));
  if (ids.shape(0) != rows.rows)
    throw py::value_error(fmt::format("topk_ids: T: expected {}, got {}", rows.rows, ids.shape(0)));
  const auto up = pointers(w.up), down = pointers(w.down);
  const QuantExpertsArgs args =
      layer_args(w, up, down, smooth_up, smooth_down, dtype, group_scales);
  py::array_t<float> out({static_cast<py::ssize_t>(rows.rows), static_cast<py::ssize_t>(w.d)});
  const MatrixF32 view(out.mutable_data(), rows.rows, w.d);
  machine.run(quant_experts_workspace_bytes(shape_of(w, rows.rows * k, group_scales)),
              [&](Runtime& r, Workspace scratch) {
                return routed(r.context(), rows, all_ids, all_weights, k, args, scratch, view);
              });
  return out;
}

std::shared_ptr<QuantizedExperts> checked(QuantizedExperts w) {
  w.d = w.up.front().k;
  w.width = w.down.front().k;
  if (w.up.size() != w.down.size() || w.up.front().n != 2 * w.width || w.down.front().n != w.d)
    throw py::value_error("up_weight, down_weight: expected [E, 2I, D] and [E, D, I]");
  return std::make_shared<QuantizedExperts>(std::move(w));
}

void add_packing(py::module_& m, Machine& machine) {
  py::class_<QuantizedExperts, std::shared_ptr<QuantizedExperts>>(
      m, "QuantizedExperts", "Integer or fp8 weights of an expert layer, packed for quant_experts.")
      .def_property_readonly("num_experts", &QuantizedExperts::experts)
      .def_property_readonly("nbytes", &QuantizedExperts::bytes);
  m.def(
      "pack_quant_experts",
      [&](const py::array& up, const py::array& up_scale, const py::array& down,
          const py::array& down_scale, const std::string& up_layout, const std::string& down_layout,
          int64_t up_group, int64_t down_group) {
        return checked(
            {pack_side(machine, up, up_scale, up_layout, up_group, "up_weight"),
             pack_side(machine, down, down_scale, down_layout, down_group, "down_weight")});
      },
      py::arg("up_weight"), py::arg("up_scale"), py::arg("down_weight"), py::arg("down_scale"),
      py::kw_only(), py::arg("up_layout") = "int8", py::arg("down_layout") = "int8",
      py::arg("up_group_size") = -1, py::arg("down_group_size") = -1,
      "up [E, 2I, D] (gate first), down [E, D, I], each int8, int4_rows (pairs of output rows, "
      "low\n"
      "nibble even, signed) or int4_k (pairs of k, zero point 8); scales [E, N] or [E, N, "
      "groups],\n"
      "of float32, float16 or bfloat16; group sizes of 32 or more, the last may be short.");
  m.def(
      "pack_fp8_experts",
      [&](const py::array& up, const py::array& up_scale, const py::array& down,
          const py::array& down_scale, std::optional<std::pair<int64_t, int64_t>> block,
          std::optional<int64_t> group) {
        const int64_t size = group ? *group : block ? block->second : -1;
        return checked({pack_fp8_side(machine, up, up_scale, block, size, "up_weight"),
                        pack_fp8_side(machine, down, down_scale, block, size, "down_weight")});
      },
      py::arg("up_weight"), py::arg("up_scale"), py::arg("down_weight"), py::arg("down_scale"),
      py::kw_only(), py::arg("block_shape") = py::none(), py::arg("group_size") = py::none(),
      "up [E, 2I, D] (gate first), down [E, D, I]: uint8, the bits of float8_e4m3fn; scales [E],\n"
      "[E, N], or with block_shape (n, k) [E, ceil(N / n), ceil(K / k)]. group_size: k of which a\n"
      "product is summed before its scales (default: block_shape's, else -1, all).");
}

}  // namespace

void add_quant_experts(py::module_& m, Machine& machine) {
  add_packing(m, machine);
  m.def(
      "quant_experts",
      [&](const py::array& x, const py::object& counts, const QuantizedExperts& w,
          const py::object& smooth_up, const py::object& smooth_down, const std::string& dtype,
          std::optional<bool> group_scales) {
        return run_quant_experts(machine, x, counts, w, smooth_up, smooth_down, dtype,
                                 scales_by_group(w, group_scales));
      },
      py::arg("x"), py::arg("tokens_per_expert"), py::arg("experts"),
      py::arg("inv_smooth_up") = py::none(), py::arg("inv_smooth_down") = py::none(), py::kw_only(),
      py::arg("dtype") = "bfloat16", py::arg("group_scales") = py::none(),
      "Rows sorted by expert through up, silu and down, activations quantised before each "
      "product;\n"
      "int8 by mojo_opset's rule, fp8 by MAX's, a scale per row or, group_scales, per group of "
      "the\n"
      "weights; results of the products are rounded to dtype. Returns [T, D] f32 holding values of "
      "dtype.");
  m.def(
      "quant_group_gemm",
      [&](const py::array& x, const py::array& x_scale, const py::object& counts,
          const QuantizedExperts& w, const std::string& side, const std::string& dtype) {
        return quant_group_gemm(machine, x, x_scale, counts, w, side, dtype);
      },
      py::arg("x"), py::arg("x_scale"), py::arg("tokens_per_expert"), py::arg("experts"),
      py::kw_only(), py::arg("side") = "up", py::arg("dtype") = "float32",
      "One product of quant_experts: sum over groups ascending of (f32(int32 sum) * w_scale) *\n"
      "x_scale, rounded to dtype; of fp8 (f32 sum * x_scale) * w_scale. x [T, K] int8, or the "
      "bits\n"
      "of e4m3 as uint8; x_scale f32 [T], [T, groups], or [1, 1] of the tensor.");
  m.def(
      "fused_experts",
      [&](const py::array& x, const QuantizedExperts& w, const py::array& weights,
          const py::array& ids, const py::object& smooth_up, const py::object& smooth_down,
          const std::string& dtype, std::optional<bool> group_scales) {
        return fused_quant_experts(machine, x, w, weights, ids, smooth_up, smooth_down, dtype,
                                   scales_by_group(w, group_scales));
      },
      py::arg("hidden_states"), py::arg("experts"), py::arg("topk_weights"), py::arg("topk_ids"),
      py::kw_only(), py::arg("inv_smooth_up") = py::none(), py::arg("inv_smooth_down") = py::none(),
      py::arg("dtype") = "bfloat16", py::arg("group_scales") = py::none(),
      "quant_experts between sorting by expert and moe_sum, ids outside [0, E) dropped -> [T, D].");
}

}  // namespace sluice::python
