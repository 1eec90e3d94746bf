// The grouped matrix product alone, as GMM kernels of other engines define it.
#include "module.h"
#include "ops/grouped_matmul/grouped_matmul.h"
#include "ops/matmul/pack.h"

namespace sluice::python {
namespace {

struct PackedGroups {
  std::vector<PackedMatrix> matrices;
  int64_t n = 0, k = 0;
};

std::shared_ptr<PackedGroups> pack_groups(Machine& machine, const py::array& w,
                                          const std::string& format) {
  if (w.ndim() != 3) throw py::value_error("rhs: expected [G, N, K]");
  const bool bf16 = format == "bf16";
  if (!bf16 && format != "f32")
    throw py::value_error("format: expected f32 or bf16, got " + format);
  auto packed = std::make_shared<PackedGroups>();
  packed->n = w.shape(1);
  packed->k = w.shape(2);
  const float* data = contiguous<float>(w, "rhs");
  machine.run(0, [&](Runtime&, Workspace) -> Status {
    for (int64_t g = 0; g < w.shape(0); ++g) {
      const StoredMatrix m = stored_rows(data + g * packed->n * packed->k, packed->n, packed->k);
      SLUICE_ASSIGN_OR_RETURN(
          PackedMatrix one,
          pack_matrix(machine.storage(), m, bf16 ? WeightFormat::kBF16 : WeightFormat::kF32, {}));
      packed->matrices.push_back(std::move(one));
    }
    return ok_status();
  });
  return packed;
}

// Rows of groups [offset, offset + G) of group_sizes; every other row is zero.
py::array_t<float> grouped_matmul_rows(Machine& machine, const py::array& lhs,
                                       const PackedGroups& rhs, const py::array& group_sizes,
                                       int64_t offset) {
  const std::span<const int32_t> sizes = values<int32_t>(group_sizes, "group_sizes");
  const auto groups = std::ssize(rhs.matrices);
  GroupedMatmulArgs args;
  args.arith = arith_of(rhs.matrices.empty() || rhs.matrices[0].format == WeightFormat::kF32
                            ? Compute::kF32
                            : Compute::kBf16);
  args.x = matrix(lhs, "lhs");
  if (offset < 0 || offset + groups > std::ssize(sizes))
    throw py::value_error(
        fmt::format("group_offset: expected 0 to {}, got {}", std::ssize(sizes) - groups, offset));
  std::vector<int32_t> starts = {0}, source;
  int64_t row = 0, first = 0;
  for (int64_t g = 0; g < std::ssize(sizes); ++g) {
    const int32_t size = sizes[static_cast<size_t>(g)];
    if (size < 0) throw py::value_error("group_sizes: expected 0 or more");
    if (g == offset) first = row;
    if (g >= offset && g < offset + groups) {
      for (int32_t i = 0; i < size; ++i) source.push_back(static_cast<int32_t>(row + i));
      starts.push_back(static_cast<int32_t>(source.size()));
    }
    row += size;
  }
  if (row > args.x.rows)
    throw py::value_error(
        fmt::format("group_sizes: expected a sum up to M = {}, got {}", args.x.rows, row));
  std::vector<const PackedMatrix*> experts;
  for (const PackedMatrix& m : rhs.matrices) experts.push_back(&m);
  py::array_t<float> out({static_cast<py::ssize_t>(args.x.rows), static_cast<py::ssize_t>(rhs.n)});
  std::fill_n(out.mutable_data(), out.size(), 0.0f);
  if (source.empty()) return out;
  args.source = source;
  args.starts = starts;
  args.experts = experts;
  args.out = {out.mutable_data() + first * rhs.n, std::ssize(source), rhs.n};
  machine.run(grouped_matmul_workspace_bytes(std::ssize(source), rhs.k),
              [&](Runtime& r, Workspace scratch) {
                return sluice::grouped_matmul(r.context(), args, scratch);
              });
  return out;
}

}  // namespace

void add_grouped(py::module_& m, Machine& machine) {
  py::class_<PackedGroups, std::shared_ptr<PackedGroups>>(
      m, "PackedGroups", "Matrices [G, N, K] in the form that the kernels stream.");
  m.def(
      "pack_groups",
      [&](const py::array& w, const std::string& format) {
        return pack_groups(machine, w, format);
      },
      py::arg("rhs"), py::kw_only(), py::arg("format") = "bf16",
      "rhs float32 [G, N, K] to format f32 or bf16.");
  m.def(
      "grouped_matmul",
      [&](const py::array& lhs, const PackedGroups& rhs, const py::array& sizes, int64_t offset) {
        return grouped_matmul_rows(machine, lhs, rhs, sizes, offset);
      },
      py::arg("lhs"), py::arg("rhs"), py::arg("group_sizes"), py::kw_only(),
      py::arg("group_offset") = 0,
      "lhs [M, K] in runs of group_sizes rows, the runs of groups [group_offset, group_offset + "
      "G)\n"
      "times rhs[g]^T -> [M, N] f32; every other row is zero. bf16 weights round lhs to bf16 "
      "once.");
}

}  // namespace sluice::python
