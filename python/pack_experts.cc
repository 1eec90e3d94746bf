// Weights of expert layers, packed once.
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "ops/matmul/pack.h"
#include "ops/matmul/pack_fp8.h"
#include "ops/matmul/panels.h"
#include "packed_experts.h"
#include "quant_arrays.h"

namespace sluice::python {
namespace {

// Every weight as the products see it, [E, N, K] f32; of gate and up, gate first.
py::array_t<float> dequantized(const std::vector<PackedMatrix>& matrices) {
  const int64_t n = matrices.empty() ? 0 : matrices.front().n,
                k = matrices.empty() ? 0 : matrices.front().k;
  py::array_t<float> out({static_cast<py::ssize_t>(matrices.size()), static_cast<py::ssize_t>(n),
                          static_cast<py::ssize_t>(k)});
  float* to = out.mutable_data();
  const py::gil_scoped_release release;
  std::vector<float> panel(static_cast<size_t>(k) * 16);
  for (const PackedMatrix& m : matrices) {
    const bool glu = m.layout == WeightLayout::kGluPanel16;
    const int64_t panels = glu ? 2 * ceil_div(n / 2, 16) : ceil_div(n, 16);
    for (int64_t p = 0; p < panels; ++p) {
      unpack_panel(m, p, panel.data());
      const PanelColumns at = panel_columns(n, glu, p);
      for (int64_t c = 0; c < at.count; ++c)
        for (int64_t i = 0; i < k; ++i)
          to[(at.first + c) * k + i] = panel[static_cast<size_t>(i * 16 + c)];
    }
    to += n * k;
  }
  return out;
}

WeightFormat format_named(const std::string& name) {
  std::string names;
  for (int i = 0; i < kWeightFormats; ++i) {
    const auto f = static_cast<WeightFormat>(i);
    if (f == WeightFormat::kF16) continue;  // has no panels
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
      throw py::value_error(fmt::format("block_shape: expected [n, k], 1 or more each, got [{}]",
                                        fmt::join(*block, ", ")));
    else if (a.ndim() == 1)
      block_n = n, block_k = k;
    else
      block_k = k, rows = n;
    cols = ceil_div(k, block_k);
    if (a.ndim() < 1 || a.shape(0) != w.shape(0) || a.size() != w.shape(0) * rows * cols)
      throw py::value_error(fmt::format("{}: scale: expected [E, {}, {}] = [{}, {}, {}], got {}",
                                        name, block ? "N / bn" : "N", block ? "K / bk" : "1",
                                        w.shape(0), rows, cols,
                                        py::str(a.attr("shape")).cast<std::string>()));
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
    throw py::value_error(fmt::format("{}: expected [{}, {}], got {}", name, experts, cols,
                                      py::str(a.attr("shape")).cast<std::string>()));
  const std::span<const float> all = values<float>(a, name);
  for (int64_t e = 0; e < experts; ++e)
    rows.emplace_back(all.begin() + e * cols, all.begin() + (e + 1) * cols);
  return rows;
}

// w1 [E, 2I, D] and w2 [E, D, I] as experts: I, D and how w1's rows lie.
struct Sides {
  int64_t experts = 0, width = 0, d = 0;
  GateUp rows{};
};
Sides sides_of(const py::array& w1, int64_t k1, const py::array& w2, int64_t k2,
               const std::string& layout) {
  if (w1.shape(0) != w2.shape(0) || w1.shape(1) != 2 * k2 || k1 != w2.shape(1))
    throw py::value_error(
        fmt::format("w1, w2: expected [E, 2I, D] and [E, D, I], got [{}, {}, {}] and [{}, {}, {}]",
                    w1.shape(0), w1.shape(1), k1, w2.shape(0), w2.shape(1), k2));
  return {w1.shape(0), k2, k1, gate_up_rows(layout, k2)};
}

// gate_up(device, how, e) and down(device, how, e) are an expert's matrices.
template <class GateUpOf, class DownOf>
void pack_each(Machine& machine, int64_t experts, PackedExperts& packed, const GateUpOf& gate_up,
               const DownOf& down) {
  machine.run(0, [&](Runtime& r, Workspace) -> Status {
    const IntPacking how{.pool = &r.pool()};
    for (size_t e = 0; e < static_cast<size_t>(experts); ++e) {
      SLUICE_ASSIGN_OR_RETURN(PackedMatrix up, gate_up(machine.storage(), how, e));
      SLUICE_ASSIGN_OR_RETURN(PackedMatrix back, down(machine.storage(), how, e));
      packed.gate_up.push_back(std::move(up));
      packed.down.push_back(std::move(back));
    }
    return ok_status();
  });
}

struct Scales {
  py::object up, down;
  std::optional<std::vector<int64_t>> block;
};

Sides pack_floats(Machine& machine, const py::array& w1, const py::array& w2, const Scales& scales,
                  const std::string& layout, PackedExperts& packed) {
  if (w1.ndim() != 3 || w2.ndim() != 3)
    throw py::value_error(
        fmt::format("w1, w2: expected [E, 2I, D] and [E, D, I], got {} and {} dimensions",
                    w1.ndim(), w2.ndim()));
  const Sides s = sides_of(w1, w1.shape(2), w2, w2.shape(2), layout);
  const Fp8Scales up_scales(scales.up, scales.block, w1, "w1"),
      down_scales(scales.down, scales.block, w2, "w2");
  std::vector<StoredMatrix> gates, ups, downs;  // read with the interpreter's lock
  for (int64_t e = 0; e < s.experts; ++e) {
    gates.push_back(part(w1, "w1", e, s.rows.gate, s.rows.step, s.width, up_scales));
    ups.push_back(part(w1, "w1", e, s.rows.up, s.rows.step, s.width, up_scales));
    downs.push_back(part(w2, "w2", e, 0, 1, s.d, down_scales));
  }
  pack_each(
      machine, s.experts, packed,
      [&](Device& device, const IntPacking& how, size_t e) {
        return pack_glu(device, gates[e], ups[e], packed.format, how);
      },
      [&](Device& device, const IntPacking& how, size_t e) {
        return pack_matrix(device, downs[e], packed.format, how);
      });
  return s;
}

// Codes [E, N, K / 2], or [E, N, K / 32, 16] as gpt-oss has them, and scales [E, N, K / 32].
struct Mxfp4Side {
  Mxfp4Side(const py::array& w, const py::object& scale, const char* name) {
    if (scale.is_none())
      throw py::value_error(fmt::format("{}_scale: expected scales of both w1 and w2", name));
    const auto s = scale.cast<py::array>();
    if (w.itemsize() != 1 || s.itemsize() != 1)
      throw py::type_error(fmt::format("{}: mxfp4: expected codes and scales as uint8, got {}, {}",
                                       name, dtype_of(w), dtype_of(s)));
    if ((w.flags() & s.flags() & py::array::c_style) == 0)
      throw py::value_error(fmt::format("{}: expected C-contiguous codes and scales", name));
    if (w.ndim() != 3 && !(w.ndim() == 4 && w.shape(3) == 16))
      throw py::value_error(
          fmt::format("{}: mxfp4: expected codes [E, N, K / 2] or [E, N, K / 32, 16], got {}", name,
                      py::str(w.attr("shape")).cast<std::string>()));
    n = w.shape(1);
    k = 2 * w.shape(2) * (w.ndim() == 4 ? 16 : 1);
    if (s.ndim() != 3 || s.shape(0) != w.shape(0) || s.shape(1) != n || s.shape(2) * 32 != k)
      throw py::value_error(
          fmt::format("{}_scale: mxfp4: expected [E, N, K / 32] of codes [{}, {}, {}], got {}",
                      name, w.shape(0), n, k, py::str(s.attr("shape")).cast<std::string>()));
    blocks = static_cast<const std::byte*>(w.data());
    scales = static_cast<const std::byte*>(s.data());
  }
  // Of expert e every `step`th row from `first` on.
  StoredMxfp4 part(size_t e, int64_t first, int64_t step, int64_t rows) const {
    const int64_t row = static_cast<int64_t>(e) * n + first;
    return {blocks + row * (k / 2), scales + row * (k / 32), rows, k, step};
  }
  int64_t n = 0, k = 0;
  const std::byte *blocks = nullptr, *scales = nullptr;
};

Sides pack_mxfp4_codes(Machine& machine, const py::array& w1, const py::array& w2,
                       const Scales& scales, const std::string& layout, PackedExperts& packed) {
  if (scales.block) throw py::value_error("block_shape: belongs to format fp8");
  const Mxfp4Side ups(w1, scales.up, "w1"), downs(w2, scales.down, "w2");
  const Sides s = sides_of(w1, ups.k, w2, downs.k, layout);
  pack_each(
      machine, s.experts, packed,
      [&](Device& device, const IntPacking&, size_t e) {
        return pack_mxfp4_glu(device, ups.part(e, s.rows.gate, s.rows.step, s.width),
                              ups.part(e, s.rows.up, s.rows.step, s.width));
      },
      [&](Device& device, const IntPacking&, size_t e) {
        return pack_mxfp4(device, downs.part(e, 0, 1, s.d));
      });
  return s;
}

std::shared_ptr<PackedExperts> pack_experts(Machine& machine, const py::array& w1,
                                            const py::array& w2, const std::string& format,
                                            const std::string& layout, const py::object& w1_bias,
                                            const py::object& w2_bias, const Scales& scales) {
  auto packed = std::make_shared<PackedExperts>();
  packed->format = format_named(format);
  const bool scaled = !(scales.up.is_none() && scales.down.is_none());
  const bool mxfp4 = packed->format == WeightFormat::kMXFP4;
  if (scaled && !mxfp4 && packed->format != WeightFormat::kFP8)
    throw py::value_error("w1_scale, w2_scale: belong to formats fp8 and mxfp4, got " + format);
  const Sides s = scaled && mxfp4 ? pack_mxfp4_codes(machine, w1, w2, scales, layout, *packed)
                                  : pack_floats(machine, w1, w2, scales, layout, *packed);
  packed->d = s.d;
  packed->width = s.width;
  packed->gate_up_bias = rows_of(w1_bias, "w1_bias", s.experts, 2 * s.width);
  packed->down_bias = rows_of(w2_bias, "w2_bias", s.experts, s.d);
  for (std::vector<float>& b : packed->gate_up_bias) {  // ours: gate first
    const std::vector<float> stored = b;
    for (int64_t i = 0; i < s.width; ++i) {
      b[static_cast<size_t>(i)] = stored[static_cast<size_t>(s.rows.gate + i * s.rows.step)];
      b[static_cast<size_t>(s.width + i)] =
          stored[static_cast<size_t>(s.rows.up + i * s.rows.step)];
    }
  }
  return packed;
}

}  // namespace

void add_pack_experts(py::module_& m, Machine& machine) {
  py::class_<PackedExperts, std::shared_ptr<PackedExperts>>(
      m, "PackedExperts", "The weights of an expert layer in the form that the kernels stream.")
      .def_property_readonly("num_experts", [](const PackedExperts& w) { return w.down.size(); })
      .def_property_readonly("nbytes", &PackedExperts::bytes)
      .def(
          "dequantize",
          [](const PackedExperts& w) {
            return py::make_tuple(dequantized(w.gate_up), dequantized(w.down));
          },
          "w1 [E, 2I, D], gate first, and w2 [E, D, I] as f32: what the codes stand for.")
      .def_property_readonly("format", [](const PackedExperts& w) {
        return std::string(weight_format_name(w.format));
      });
  m.def(
      "pack_experts",
      [&](const py::array& w1, const py::array& w2, const std::string& format,
          const std::string& layout, const py::object& b1, const py::object& b2,
          const py::object& s1, const py::object& s2,
          const std::optional<std::vector<int64_t>>& block) {
        return pack_experts(machine, w1, w2, format, layout, b1, b2, {s1, s2, block});
      },
      py::arg("w1"), py::arg("w2"), py::kw_only(), py::arg("format") = "bf16",
      py::arg("layout") = "gate_first", py::arg("w1_bias") = py::none(),
      py::arg("w2_bias") = py::none(), py::arg("w1_scale") = py::none(),
      py::arg("w2_scale") = py::none(), py::arg("block_shape") = py::none(),
      "w1 [E, 2I, D], w2 [E, D, I], float32, float16 or bfloat16, any strides, to\n"
      "format f32, bf16, fp8, int8, int4, mxfp4 or one of GGUF's: q8_0, q4_0, q5_0, q5_1, q4_k,\n"
      "q5_k, q6_k, iq4_nl; layout of w1's rows: gate_first, up_first, interleaved.\n"
      "With w1_scale and w2_scale the weights are codes, which are kept: of fp8 float8_e4m3fn (or\n"
      "uint8), scales [E], [E, N], or one for each block_shape; of mxfp4 uint8 [E, N, K / 2] or\n"
      "[E, N, K / 32, 16], two k to a byte, the low nibble first, scales uint8 [E, N, K / 32].");
}

}  // namespace sluice::python
