// Rows to their experts and back, for engines with expert parallelism: moe_permute, moe_unpermute.
#include <algorithm>

#include "expert_map.h"
#include "module.h"
#include "ops/moe_combine/moe_combine.h"
#include "ops/moe_sort/moe_sort.h"

namespace sluice::python {
namespace {

// [T, D] of any dtype whose rows are contiguous, where they lie.
struct AnyRows {
  AnyRows(const py::array& a, const char* name) {
    require_rows(a, name, 2);
    row_stride(a, name);
    data = static_cast<const std::byte*>(a.data());
    stride = a.shape(0) > 1 ? a.strides(0) : 0;
    bytes = a.shape(1) * a.itemsize();
  }
  const std::byte* data = nullptr;
  int64_t stride = 0, bytes = 0;
};

py::tuple moe_permute(Machine& machine, const py::array& x, const py::array& ids, int64_t experts,
                      const py::object& map) {
  const AnyRows rows(x, "hidden_states");
  require_rows(ids, "topk_ids", 2);
  if (ids.shape(0) != x.shape(0))
    throw py::value_error(
        fmt::format("topk_ids: T: expected {}, got {}", x.shape(0), ids.shape(0)));
  MoeSortArgs args;
  args.ids = values<int32_t>(ids, "topk_ids");
  args.k = ids.shape(1);
  args.expert_map = expert_map(map, "expert_map", experts);
  args.experts = mapped_experts(args.expert_map, experts, "n_expert");
  py::array_t<int64_t> offsets(args.experts + 1);
  py::array_t<int32_t> inverse({ids.shape(0), ids.shape(1)});
  std::vector<int32_t> starts(static_cast<size_t>(args.experts) + 1), source(args.ids.size());
  args.starts = starts;
  args.source = source;
  args.inverse = writable(inverse);
  machine.run(0, [&](Runtime& r, Workspace) { return moe_sort(r.context(), args); });
  std::ranges::copy(starts, offsets.mutable_data());
  const int64_t live = starts.back();
  py::array out(x.dtype(), std::vector<py::ssize_t>{live, x.shape(1)});
  auto* to = static_cast<std::byte*>(out.mutable_data());
  const py::gil_scoped_release release;
  for (int64_t i = 0; i < live; ++i)
    std::copy_n(rows.data + source[static_cast<size_t>(i)] * rows.stride, rows.bytes,
                to + i * rows.bytes);
  const py::gil_scoped_acquire acquire;
  return py::make_tuple(out, offsets, inverse);
}

py::array_t<float> moe_unpermute(Machine& machine, const py::array& y, const py::array& weights,
                                 const py::array& inverse) {
  require_rows(inverse, "inv_permuted_idx", 2);
  require_same_shape(weights, "topk_weights", inverse, "inv_permuted_idx");
  MoeCombineArgs args;
  args.y = matrix(y, "permuted_hidden_states");
  args.weights = values<float>(weights, "topk_weights");
  args.inverse = values<int32_t>(inverse, "inv_permuted_idx");
  args.k = inverse.shape(1);
  py::array_t<float> out({inverse.shape(0), y.shape(1)});
  args.out = {out.mutable_data(), inverse.shape(0), y.shape(1)};
  machine.run(0, [&](Runtime& r, Workspace) { return moe_combine(r.context(), args); });
  return out;
}

}  // namespace

void add_permute(py::module_& m, Machine& machine) {
  m.def(
      "moe_permute",
      [&](const py::array& x, const py::array& ids, int64_t experts, const py::object& map) {
        return moe_permute(machine, x, ids, experts, map);
      },
      py::arg("hidden_states"), py::arg("topk_ids"), py::arg("n_expert"),
      py::arg("expert_map") = py::none(),
      "Rows [T, D] of any dtype by expert, stable; ids outside [0, n_expert) and experts that the\n"
      "map leaves out (-1) have none. Returns permuted_hidden_states [rows, D],\n"
      "expert_first_token_offset [E + 1] i64, inv_permuted_idx [T, K] i32 (-1: no row).");
  m.def(
      "moe_unpermute",
      [&](const py::array& y, const py::array& weights, const py::array& inverse) {
        return moe_unpermute(machine, y, weights, inverse);
      },
      py::arg("permuted_hidden_states"), py::arg("topk_weights"), py::arg("inv_permuted_idx"),
      "sum over k ascending of topk_weights[t, k] * rows[inv_permuted_idx[t, k]] -> [T, D] f32.");
}

}  // namespace sluice::python
