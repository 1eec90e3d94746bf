// Dynamic quantisation of activations, and what stands beside it.
#include "module.h"
#include "ops/elementwise/elementwise.h"
#include "ops/quantize_rows/quantize_rows.h"
#include "quant_arrays.h"

namespace sluice::python {
namespace {

py::tuple dynamic_quant(Machine& machine, const py::array& x, const py::object& counts,
                        const py::object& inv_smooth, int64_t group) {
  const Rows rows(x, "x");
  QuantizeRowsArgs args;
  args.x = rows.wide;
  args.x_bf16 = rows.half;
  args.counts = counts_of(counts);
  const auto experts = static_cast<int64_t>(counts.is_none() ? 1 : args.counts.size());
  args.inv_smooth = smoothing(inv_smooth, "inv_smooth", experts, rows.cols);
  args.scope = group == -1 ? QuantizeScope::kRow : QuantizeScope::kGroup;
  args.group = group;
  const int64_t groups = group < 1 ? 1 : ceil_div(rows.cols, group);
  py::array_t<int8_t> codes({rows.rows, rows.cols});
  py::array_t<float> scales({rows.rows, groups});
  args.codes = {reinterpret_cast<uint8_t*>(codes.mutable_data()), rows.rows, rows.cols, rows.cols};
  args.scales = {scales.mutable_data(), groups, 1};
  machine.run(0, [&](Runtime& r, Workspace) { return quantize_rows(r.context(), args); });
  return py::make_tuple(codes, scales);
}

ScaleType scale_type_named(const std::string& name) {
  if (name == "float32") return ScaleType::kF32;
  if (name == "bfloat16") return ScaleType::kBF16;
  if (name == "float16") return ScaleType::kF16;
  if (name == "float8_e8m0fnu") return ScaleType::kE8M0;
  throw py::value_error("scale_dtype: expected float32, bfloat16, float16 or float8_e8m0fnu, got " +
                        name);
}

py::tuple dynamic_float8(Machine& machine, const py::array& x, int64_t group, float bound,
                         const std::string& scale_dtype, bool per_tensor) {
  const Rows rows(x, "input");
  QuantizeRowsArgs args;
  args.to = QuantizeTo::kE4m3;
  args.x = rows.wide;
  args.x_bf16 = rows.half;
  args.scope = per_tensor    ? QuantizeScope::kTensor
               : group == -1 ? QuantizeScope::kRow
                             : QuantizeScope::kGroup;
  args.group = group;
  args.scale_type = scale_type_named(scale_dtype);
  args.scale_bound = bound;
  const int64_t groups = per_tensor || group < 1 ? 1 : ceil_div(rows.cols, group);
  const int64_t columns = per_tensor ? 1 : rows.rows;
  py::array_t<uint8_t> codes({rows.rows, rows.cols});
  py::array_t<float> scales({groups, columns});
  args.codes = {codes.mutable_data(), rows.rows, rows.cols, rows.cols};
  args.scales = {scales.mutable_data(), 1, columns};
  machine.run(0, [&](Runtime& r, Workspace) { return quantize_rows(r.context(), args); });
  return py::make_tuple(codes, scales);
}

py::array_t<uint8_t> repack(const py::array& w, const std::string& from, const std::string& to) {
  if (w.ndim() != 2) throw py::value_error("weight: expected two dimensions");
  const QuantLayout a = layout_named(from), b = layout_named(to);
  const int64_t n = w.shape(0) * (a == QuantLayout::kInt4RowPairs ? 2 : 1);
  const int64_t k = w.shape(1) * (a == QuantLayout::kInt4KPairs ? 2 : 1);
  const bool rows = b == QuantLayout::kInt4RowPairs;
  py::array_t<uint8_t> out({rows ? n / 2 : n, rows ? k : k / 2});
  const std::span<std::byte> bytes(reinterpret_cast<std::byte*>(out.mutable_data()),
                                   static_cast<size_t>(out.size()));
  require(repack_int4(n, k, a, bytes_of(w, "weight"), b, bytes));
  return out;
}

py::array_t<float> silu_and_mul(Machine& machine, const py::array& x) {
  const ConstMatrixF32 all = matrix(x, "input");
  if (all.cols % 2 != 0) throw py::value_error("input: expected [T, 2I]");
  const int64_t width = all.cols / 2;
  py::array_t<float> out({static_cast<py::ssize_t>(all.rows), static_cast<py::ssize_t>(width)});
  const MatrixF32 view(out.mutable_data(), all.rows, width);
  machine.run(0, [&](Runtime& r, Workspace) {
    return glu(r.context(), {all.data, all.rows, width, all.stride},
               {all.data + width, all.rows, width, all.stride}, {ActivationKind::kSilu}, view);
  });
  return out;
}

}  // namespace

void add_quant(py::module_& m, Machine& machine) {
  m.def(
      "moe_dynamic_quant",
      [&](const py::array& x, const py::object& counts, const py::object& smooth) {
        return dynamic_quant(machine, x, counts, smooth, -1);
      },
      py::arg("x"), py::arg("tokens_per_expert"), py::arg("inv_smooth"),
      "Rows sorted by expert times inv_smooth[e], to int8 with one scale per row: scale =\n"
      "max(amax, 1e-12) / 127, 1 where below 1e-6; half to even. x [T, D] float32, float16 or\n"
      "bfloat16; tokens_per_expert [E] int32. Returns codes [T, D] int8, scales [T, 1] f32.");
  m.def(
      "dynamic_quant",
      [&](const py::array& x, const py::object& smooth, int64_t group) {
        return dynamic_quant(machine, x, py::none(), smooth, group);
      },
      py::arg("x"), py::arg("inv_smooth") = py::none(), py::kw_only(), py::arg("group_size") = -1,
      "The same rule by row (-1) or by group of columns, the last may be short.\n"
      "Returns codes [T, D] int8, scales [T, groups] f32.");
  m.def(
      "quantize_dynamic_scaled_float8",
      [&](const py::array& x, int64_t group, float bound, const std::string& scale_dtype,
          bool per_tensor) {
        return dynamic_float8(machine, x, group, bound, scale_dtype, per_tensor);
      },
      py::arg("input"), py::arg("group_size_or_per_token") = -1, py::arg("scale_ub") = 1200.0f,
      py::kw_only(), py::arg("scale_dtype") = "float32", py::arg("per_tensor") = false,
      "To e4m3fn by row (-1), group of columns or tensor: scale = min(amax, scale_ub) / 448 in\n"
      "scale_dtype, code = saturate(x * (1 / scale)). Returns codes [T, D] uint8 (the bits),\n"
      "scales [groups, T] f32, group-major.");
  m.def("repack_int4", &repack, py::arg("weight"), py::arg("source"), py::arg("target"),
        "Bytes of int4 codes from one layout to the other: int4_rows [N/2, K], int4_k [N, K/2].");
  m.def(
      "silu_and_mul", [&](const py::array& x) { return silu_and_mul(machine, x); },
      py::arg("input"), "silu(x[:, :I]) * x[:, I:] of [T, 2I] float32.");
}

}  // namespace sluice::python
