// fused_experts and pack_experts by the flags that vLLM and SGLang gave them. A flag names a
// weight format and what rows are beside it; what Sluice has for the pair serves it, what it has
// not is refused by the flag's name.
//
//   flag             weights                       served by
//   none             f32, f16, bf16                pack_experts
//   use_fp8_w8a8     e4m3, scale tensor|row|block  fp8 x fp8: a scale per token, or per block of k
//   use_fp8_w8a16    e4m3, scale tensor|row|block  fp8 panels, codes kept; rows in bf16
//   use_int8_w8a8    int8, scale tensor|row        int8 x int8: a scale per token
//   use_int8_w8a16   int8, uint8 (zero point 128)  (q - zp) * s rounded to compute's dtype once,
//   use_int4_w4a16   two along K, zero point 8     when packed; rows in that dtype
#include <pybind11/stl.h>

#include <optional>

#include "base/fp.h"
#include "module.h"
#include "quant_arrays.h"

namespace sluice::python {
namespace {

struct Flags {
  bool fp8_w8a8 = false, fp8_w8a16 = false, int8_w8a8 = false, int8_w8a16 = false,
       int4_w4a16 = false, per_channel_quant = false;
  py::object w1_scale, w2_scale, w1_zp, w2_zp, a1_scale, a2_scale;
  std::optional<std::vector<int64_t>> block_shape;
  std::string layout, compute;
  py::object w1_bias, w2_bias;
};

[[noreturn]] void refuse(const std::string& message) {
  raise(unimplemented("{}", "fused_experts: " + message));
}
[[noreturn]] void wrong(const std::string& message) {
  throw py::value_error("fused_experts: " + message);
}

// The one flag that is set; empty: none.
std::string chosen(const Flags& f) {
  std::string found;
  for (const auto& [name, set] : {std::pair<const char*, bool>{"use_fp8_w8a8", f.fp8_w8a8},
                                  {"use_fp8_w8a16", f.fp8_w8a16},
                                  {"use_int8_w8a8", f.int8_w8a8},
                                  {"use_int8_w8a16", f.int8_w8a16},
                                  {"use_int4_w4a16", f.int4_w4a16}}) {
    if (!set) continue;
    if (!found.empty()) wrong(found + " and " + name + ": expected one of them");
    found = name;
  }
  return found;
}

void check(const Flags& f, const std::string& flag) {
  if (!f.a1_scale.is_none() || !f.a2_scale.is_none())
    refuse("a1_scale, a2_scale: given scales of activations are not built, rows find their own");
  const bool scaled = !f.w1_scale.is_none() && !f.w2_scale.is_none();
  if (flag.empty() != (f.w1_scale.is_none() && f.w2_scale.is_none()) || (!flag.empty() && !scaled))
    wrong(flag.empty() ? "w1_scale, w2_scale: no flag says what they scale"
                       : flag + ": w1_scale and w2_scale are missing");
  const bool points = !f.w1_zp.is_none() || !f.w2_zp.is_none();
  if (points && !f.int8_w8a16 && !f.int4_w4a16)
    wrong("w1_zp, w2_zp: belong to use_int8_w8a16 and use_int4_w4a16");
  if (f.block_shape && f.block_shape->size() != 2) wrong("block_shape: expected [n, k]");
  if (flag.empty() && (f.block_shape || f.per_channel_quant))
    wrong("block_shape, per_channel_quant: no flag says of what");
  if (f.per_channel_quant && f.block_shape)
    wrong("per_channel_quant and block_shape: expected one of them");
}

py::array as_array(const py::object& o) {
  return o.cast<py::array>();
}

// [E] or [E, N] (, 1) as [E, N, 1].
py::array_t<float> scales_of_rows(const py::object& given, int64_t experts, int64_t n,
                                  const char* name) {
  const py::array a = as_array(given);
  const std::vector<float> from = widened(a, name);
  const bool rows = a.size() == experts * n && a.ndim() >= 2 && a.shape(1) == n;
  if (a.ndim() < 1 || a.shape(0) != experts || (!rows && a.size() != experts))
    wrong(fmt::format("{}: expected [E] or [E, N] = [{}, {}]", name, experts, n));
  py::array_t<float> out({experts, n, int64_t{1}});
  float* to = out.mutable_data();
  for (int64_t i = 0; i < experts * n; ++i) to[i] = from[static_cast<size_t>(rows ? i : i / n)];
  return out;
}

// Codes [E, N, K] of 8 bits, or two of 4 bits in a byte: the integer at (row, k), row = e * N + n.
struct Codes {
  Codes(const py::array& w, bool nibbles, const char* name)
      : bytes(bytes_of(w, name)), four(nibbles), is_signed(w.dtype().kind() == 'i') {
    if (w.ndim() != 3) wrong(std::string(name) + ": expected [E, N, K], int4 packed along K");
    experts = w.shape(0), n = w.shape(1), k = w.shape(2) * (four ? 2 : 1);
  }
  int operator()(int64_t row, int64_t column) const {
    const auto byte =
        static_cast<uint8_t>(bytes[static_cast<size_t>((row * k + column) / (four ? 2 : 1))]);
    if (four) return column % 2 == 0 ? byte & 15 : byte >> 4;
    return is_signed ? static_cast<int8_t>(byte) : byte;
  }
  // Where none is given.
  int zero_point() const { return four ? 8 : is_signed ? 0 : 128; }

  std::span<const std::byte> bytes;
  bool four, is_signed;
  int64_t experts = 0, n = 0, k = 0;
};

// Zero points [E, N, groups]; of four bits also two rows in a byte, [E, N/2, groups], the even row
// in the low nibble.
std::vector<int> zero_points(const py::object& given, const Codes& codes, int64_t groups,
                             const char* name) {
  const int64_t rows = codes.experts * codes.n;
  if (given.is_none())
    return std::vector<int>(static_cast<size_t>(rows * groups), codes.zero_point());
  const py::array a = as_array(given);
  const std::span<const std::byte> from = bytes_of(a, name);
  const bool pairs = codes.four && a.size() * 2 == rows * groups;
  if (a.ndim() != 3 || a.shape(0) != codes.experts || a.shape(2) != groups ||
      (!pairs && a.size() != rows * groups) || (pairs && codes.n % 2 != 0))
    wrong(fmt::format("{}: expected [E, N, groups] = [{}, {}, {}]{}", name, codes.experts, codes.n,
                      groups, codes.four ? ", or two rows of N in a byte" : ""));
  std::vector<int> out;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = (pairs ? row / 2 : row) * groups + g;
      const auto byte = static_cast<uint8_t>(from[static_cast<size_t>(at)]);
      out.push_back(pairs ? byte >> (row % 2 * 4) & 15 : byte);
    }
  return out;
}

// (q - zp) * s as f32, or rounded to bf16: [E, N, K].
py::array dequantised(const py::array& w, const py::object& scale, const py::object& zp,
                      const Flags& f, const char* name) {
  const Codes codes(w, f.int4_w4a16, name);
  const py::array s = as_array(scale);
  const std::vector<float> scales = widened(s, name);
  const int64_t rows = codes.experts * codes.n;
  if (s.ndim() < 2 || s.ndim() > 3 || s.shape(0) != codes.experts || s.shape(1) != codes.n)
    wrong(fmt::format("{}: scale: expected [E, N] or [E, N, groups] = [{}, {}, ...]", name,
                      codes.experts, codes.n));
  const int64_t groups = s.ndim() == 2 ? 1 : s.shape(2);
  const int64_t group = f.block_shape ? (*f.block_shape)[1]
                        : groups > 0  ? ceil_div(codes.k, groups)
                                      : 0;
  if (group < 1 || groups != ceil_div(codes.k, group) || (!f.block_shape && codes.k % groups != 0))
    wrong(fmt::format(
        "{}: scale: {} groups of K = {} do not fit; block_shape = [0, group] says their "
        "size where the last is short",
        name, groups, codes.k));
  const std::vector<int> zeros = zero_points(zp, codes, groups, name);
  const bool wide = f.compute == "f32";
  const std::vector<py::ssize_t> shape = {codes.experts, codes.n, codes.k};
  py::array out =
      wide ? py::array(py::array_t<float>(shape)) : py::array(py::array_t<uint16_t>(shape));
  auto* const floats = static_cast<float*>(out.mutable_data());
  auto* const halves = static_cast<uint16_t*>(out.mutable_data());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t k = 0; k < codes.k; ++k) {
      const auto at = static_cast<size_t>(row * groups + k / group);
      const float v = static_cast<float>(codes(row, k) - zeros[at]) * scales[at];
      if (wide)
        floats[row * codes.k + k] = v;
      else
        halves[row * codes.k + k] = bf16(v).bits;
    }
  return out;
}

// Weights whose rows are quantised, too.
py::object pack_quantised(const py::module_& m, const py::array& w1, const py::array& w2,
                          const Flags& f, const std::string& flag) {
  using namespace pybind11::literals;
  if (f.layout != "gate_first") refuse(flag + ": layout: expected gate_first, got " + f.layout);
  if (!f.w1_bias.is_none() || !f.w2_bias.is_none()) refuse(flag + " with biases");
  if (f.fp8_w8a8) {
    py::object block = py::none();
    if (f.block_shape) block = py::make_tuple((*f.block_shape)[0], (*f.block_shape)[1]);
    return m.attr("pack_fp8_experts")(w1, f.w1_scale, w2, f.w2_scale, "block_shape"_a = block);
  }
  if (f.block_shape) refuse(flag + " with block_shape: scales of blocks are not built");
  return m.attr("pack_quant_experts")(
      w1, scales_of_rows(f.w1_scale, w1.shape(0), w1.shape(1), "w1_scale"), w2,
      scales_of_rows(f.w2_scale, w2.shape(0), w2.shape(1), "w2_scale"));
}

// What the module's own packing makes of the weights.
py::object pack(const py::module_& m, const py::array& w1, const py::array& w2, const Flags& f) {
  using namespace pybind11::literals;
  const std::string flag = chosen(f);
  check(f, flag);
  if (f.compute != "bf16" && f.compute != "f32")
    wrong("compute: expected f32 or bf16, got " + f.compute);
  if (f.int8_w8a8 || f.fp8_w8a8) return pack_quantised(m, w1, w2, f, flag);
  const py::object pack_experts = m.attr("pack_experts");
  if (f.fp8_w8a16)
    return pack_experts(w1, w2, "format"_a = "fp8", "layout"_a = f.layout, "w1_bias"_a = f.w1_bias,
                        "w2_bias"_a = f.w2_bias, "w1_scale"_a = f.w1_scale,
                        "w2_scale"_a = f.w2_scale, "block_shape"_a = f.block_shape);
  const bool whole = flag.empty();
  const py::object up =
      whole ? py::object(w1) : py::object(dequantised(w1, f.w1_scale, f.w1_zp, f, "w1"));
  const py::object down =
      whole ? py::object(w2) : py::object(dequantised(w2, f.w2_scale, f.w2_zp, f, "w2"));
  return pack_experts(up, down, "format"_a = f.compute, "layout"_a = f.layout,
                      "w1_bias"_a = f.w1_bias, "w2_bias"_a = f.w2_bias);
}

// What a call may say beside weights and their flags.
struct Call {
  bool inplace = false, weight_on_input = false;
  int64_t global_num_experts = -1;
  std::string activation, profile;
  py::object expert_map;
};

py::object run(const py::module_& m, const py::array& x, const py::array& w1, const py::array& w2,
               const py::array& weights, const py::array& ids, const Call& call, const Flags& f) {
  using namespace pybind11::literals;
  if (call.inplace) refuse("inplace: results are new arrays");
  const int64_t global = call.expert_map.is_none() ? w1.shape(0) : as_array(call.expert_map).size();
  if (call.global_num_experts != -1 && call.global_num_experts != global)
    wrong(fmt::format("global_num_experts: expected {} as {}, got {}", global,
                      call.expert_map.is_none() ? "w1 has" : "expert_map maps",
                      call.global_num_experts));
  const bool quantised = f.int8_w8a8 || f.fp8_w8a8;
  if (quantised) {
    const std::string flag = chosen(f);
    if (call.activation != "silu") refuse(flag + ": activation: only silu, got " + call.activation);
    if (call.weight_on_input) refuse(flag + " with apply_router_weight_on_input");
    if (!call.expert_map.is_none()) refuse(flag + " with expert_map");
    if (call.profile != "f32") refuse(flag + ": profile: only f32, got " + call.profile);
  }
  const py::object packed = pack(m, w1, w2, f), fused = m.attr("fused_experts");
  if (quantised) return fused(x, packed, weights, ids);
  return fused(x, packed, weights, ids, "activation"_a = call.activation, "compute"_a = f.compute,
               "expert_map"_a = call.expert_map, "profile"_a = call.profile,
               "apply_router_weight_on_input"_a = call.weight_on_input);
}

void add_call(py::module_& m) {
  // The module outlives its functions: a reference from within would keep both alive for ever.
  const py::handle self = m;
  m.def(
      "fused_experts",
      [self](const py::array& x, const py::array& w1, const py::array& w2, const py::array& weights,
             const py::array& ids, bool inplace, const std::string& activation,
             bool weight_on_input, bool fp8_w8a8, bool fp8_w8a16, bool int8_w8a8, bool int8_w8a16,
             bool int4_w4a16, bool per_channel, int64_t global_num_experts, const py::object& map,
             const py::object& s1, const py::object& s2, const py::object& z1, const py::object& z2,
             const py::object& a1, const py::object& a2,
             const std::optional<std::vector<int64_t>>& block, const py::object& b1,
             const py::object& b2, const std::string& layout, const std::string& compute,
             const std::string& profile) {
        return run(py::reinterpret_borrow<py::module_>(self), x, w1, w2, weights, ids,
                   {inplace, weight_on_input, global_num_experts, activation, profile, map},
                   {fp8_w8a8, fp8_w8a16, int8_w8a8, int8_w8a16, int4_w4a16, per_channel, s1, s2, z1,
                    z2, a1, a2, block, layout, compute, b1, b2});
      },
      py::arg("hidden_states"), py::arg("w1"), py::arg("w2"), py::arg("topk_weights"),
      py::arg("topk_ids"), py::kw_only(), py::arg("inplace") = false,
      py::arg("activation") = "silu", py::arg("apply_router_weight_on_input") = false,
      py::arg("use_fp8_w8a8") = false, py::arg("use_fp8_w8a16") = false,
      py::arg("use_int8_w8a8") = false, py::arg("use_int8_w8a16") = false,
      py::arg("use_int4_w4a16") = false, py::arg("per_channel_quant") = false,
      py::arg("global_num_experts") = -1, py::arg("expert_map") = py::none(),
      py::arg("w1_scale") = py::none(), py::arg("w2_scale") = py::none(),
      py::arg("w1_zp") = py::none(), py::arg("w2_zp") = py::none(),
      py::arg("a1_scale") = py::none(), py::arg("a2_scale") = py::none(),
      py::arg("block_shape") = py::none(), py::arg("w1_bias") = py::none(),
      py::arg("w2_bias") = py::none(), py::arg("layout") = "gate_first",
      py::arg("compute") = "bf16", py::arg("profile") = "f32",
      "As vLLM and SGLang call it: w1 [E, 2I, D] and w2 [E, D, I] as they are stored, packed in\n"
      "this call (pack_experts with the same flags packs once for many). use_fp8_w8a8 and\n"
      "use_fp8_w8a16: e4m3 codes, scales [E], [E, N] or of block_shape [n, k]; use_int8_w8a8:\n"
      "int8, scales [E] or [E, N]. Rows of w8a8 are quantised in the call, silu only, results\n"
      "rounded to bf16 behind each product. use_int8_w8a16 and use_int4_w4a16: (q - zp) * s\n"
      "rounded once to compute's dtype, scales [E, N] or [E, N, groups]. What is not built\n"
      "(inplace, a1_scale ...) is refused by name. profile=\"sglang\" rounds where their Triton\n"
      "kernels do.");
}

void add_packing(py::module_& m) {
  const py::handle self = m;
  m.def(
      "pack_experts",
      [self](const py::array& w1, const py::array& w2, bool fp8_w8a8, bool fp8_w8a16,
             bool int8_w8a8, bool int8_w8a16, bool int4_w4a16, bool per_channel,
             const py::object& s1, const py::object& s2, const py::object& z1, const py::object& z2,
             const std::optional<std::vector<int64_t>>& block, const py::object& b1,
             const py::object& b2, const std::string& layout, const std::string& compute) {
        return pack(py::reinterpret_borrow<py::module_>(self), w1, w2,
                    {fp8_w8a8, fp8_w8a16, int8_w8a8, int8_w8a16, int4_w4a16, per_channel, s1, s2,
                     z1, z2, py::none(), py::none(), block, layout, compute, b1, b2});
      },
      py::arg("w1"), py::arg("w2"), py::kw_only(), py::arg("use_fp8_w8a8") = false,
      py::arg("use_fp8_w8a16") = false, py::arg("use_int8_w8a8") = false,
      py::arg("use_int8_w8a16") = false, py::arg("use_int4_w4a16") = false,
      py::arg("per_channel_quant") = false, py::arg("w1_scale") = py::none(),
      py::arg("w2_scale") = py::none(), py::arg("w1_zp") = py::none(),
      py::arg("w2_zp") = py::none(), py::arg("block_shape") = py::none(),
      py::arg("w1_bias") = py::none(), py::arg("w2_bias") = py::none(),
      py::arg("layout") = "gate_first", py::arg("compute") = "bf16",
      "The weights of a fused_experts call with these flags, packed once: PackedExperts, or\n"
      "QuantizedExperts for w8a8.");
}

}  // namespace

void add_fused_flags(py::module_& m) {
  add_call(m);
  add_packing(m);
}

}  // namespace sluice::python
