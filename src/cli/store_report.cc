#include "cli/store_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "model/mode.h"
#include "model/pack_loss.h"
#include "ops/matmul/panels.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

// The arith by which a matrix is multiplied, in the compute modes that the store is fit for.
std::string arith_of_entry(const StoreHeader& header, const StoreEntry& e, Mode mode,
                           bool bf16_dot) {
  if (e.vector || e.layout == WeightLayout::kRowMajor) return "";
  if (const Arith arith = panel_arith(e.format, Compute::kBf16, mode); quantizes_x(arith))
    return std::string(arith_name(arith));
  if (e.role == "router" || !header.fits_bf16) return std::string(arith_name(Arith::kF32Fma));
  std::string name(arith_name(product_arith(e.format, Compute::kBf16, mode, bf16_dot)));
  if (header.fits_f32) name += fmt::format("|{}", arith_name(Arith::kF32Fma));
  return name;
}

void add_error(double error, double signal, ordered_json& out) {
  const bool lossy = error > 0 && signal > 0;
  out["relative_rms_error"] = lossy ? ordered_json(std::sqrt(error / signal)) : ordered_json();
  out["snr_db"] = lossy ? ordered_json(10 * std::log10(signal / error)) : ordered_json();
}

// Only where a pack has just measured it.
void add_beside(double beside, double signal, const std::string& formats, ordered_json& out) {
  if (beside <= 0 || signal <= 0) return;
  out["beside"] = formats;
  out["beside_relative_rms_error"] = std::sqrt(beside / signal);
  out["beside_snr_db"] = 10 * std::log10(signal / beside);
}
std::string beside_of(const StoreEntry& e) {
  const auto format = e.beside > 0 ? format_beside(e.format) : std::nullopt;
  return format ? std::string(weight_format_name(*format)) : std::string();
}

double parameters_of(const StoreEntry& e) {
  return static_cast<double>(e.n) * static_cast<double>(e.vector ? 1 : e.k);
}

std::string joined(const std::set<std::string>& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string text_of(const ordered_json& j) {
  return j.get<std::string>();
}

}  // namespace

ordered_json store_roles_json(const StoreHeader& header, Mode mode, bool bf16_dot) {
  struct Role {
    int64_t parameters = 0;
    uint64_t bytes = 0, tensors = 0;
    double error = 0, signal = 0;
    double beside = 0, beside_signal = 0;  // of the entries that have it
    std::set<std::string> formats, layouts, ariths, besides;
  };
  std::vector<std::string> order;
  std::map<std::string, Role> roles;
  for (const StoreEntry& e : header.entries) {
    if (roles.count(e.role) == 0) order.push_back(e.role);
    Role& r = roles[e.role];
    r.parameters += static_cast<int64_t>(parameters_of(e));
    r.bytes += e.bytes;
    ++r.tensors;
    r.error += e.error;
    r.signal += e.signal;
    if (const std::string name = beside_of(e); !name.empty()) {
      r.beside += e.beside;
      r.beside_signal += e.signal;
      r.besides.insert(name);
    }
    std::string format(weight_format_name(e.format));
    if (e.block > 0) format += fmt::format("/{}", e.block);
    r.formats.insert(std::move(format));
    r.layouts.insert(e.vector ? "vector" : std::string(weight_layout_name(e.layout)));
    if (const std::string arith = arith_of_entry(header, e, mode, bf16_dot); !arith.empty())
      r.ariths.insert(arith);
  }
  ordered_json out = ordered_json::object();
  for (const std::string& name : order) {
    const Role& r = roles[name];
    ordered_json j = {
        {"tensors", r.tensors},
        {"parameters", r.parameters},
        {"bytes", r.bytes},
        {"bits_per_weight", 8.0 * static_cast<double>(r.bytes) / static_cast<double>(r.parameters)},
        {"formats", joined(r.formats)},
        {"layouts", joined(r.layouts)},
        {"ariths", joined(r.ariths)}};
    add_error(r.error, r.signal, j);
    add_beside(r.beside, r.beside_signal, joined(r.besides), j);
    out[name] = std::move(j);
  }
  return out;
}

ordered_json loaded_roles_json(StoreHeader plan, Compute compute, Mode mode, bool bf16_dot) {
  lay_out_store(plan);
  plan.fits_f32 = compute == Compute::kF32;
  plan.fits_bf16 = !plan.fits_f32;
  ordered_json out = store_roles_json(plan, mode, bf16_dot);
  for (ordered_json& role : out) {
    role.erase("relative_rms_error");  // not measured: nothing is packed
    role.erase("snr_db");
  }
  return out;
}

ordered_json store_tensors_json(const StoreHeader& header, Mode mode, bool bf16_dot) {
  ordered_json out = ordered_json::array();
  for (const StoreEntry& e : header.entries) {
    ordered_json j = {
        {"name", e.name},
        {"role", e.role},
        {"shape", e.vector ? std::vector<int64_t>{e.n} : std::vector<int64_t>{e.n, e.k}},
        {"stored", dtype_name(e.stored)},
        {"packed", weight_format_name(e.format)},
        {"layout", e.vector ? "vector" : weight_layout_name(e.layout)},
        {"arith", arith_of_entry(header, e, mode, bf16_dot)},
        {"block", e.block},
        {"bytes", e.bytes},
        {"bits_per_weight", 8.0 * static_cast<double>(e.bytes) / parameters_of(e)}};
    add_error(e.error, e.signal, j);
    add_beside(e.beside, e.signal, beside_of(e), j);
    out.push_back(std::move(j));
  }
  return out;
}

void print_store_roles(const ordered_json& roles, Console& console) {
  const bool beside = std::any_of(roles.begin(), roles.end(),
                                  [](const ordered_json& r) { return r.contains("beside"); });
  const bool measured = std::any_of(roles.begin(), roles.end(),
                                    [](const ordered_json& r) { return r.contains("snr_db"); });
  console.out << fmt::format("{:10}{:>13}{:>12}{:>8}  {:21}{:23}{:26}{:{}}{}\n", "role",
                             "parameters", "size", "bits/w", "format", "layout", "arith",
                             measured ? "error (SNR)" : "", beside ? 18 : 0,
                             beside ? "GGUF's of that width" : "");
  for (const auto& role : roles.items()) {
    const ordered_json& r = role.value();
    const std::string error =
        !r.contains("snr_db") ? ""  // nothing was packed yet
        : r["snr_db"].is_null()
            ? "none"
            : fmt::format("{:.4f} ({:.1f} dB)", r["relative_rms_error"].get<double>(),
                          r["snr_db"].get<double>());
    const std::string theirs = r.contains("beside")
                                   ? fmt::format("{} {:.4f} ({:.1f} dB)", text_of(r["beside"]),
                                                 r["beside_relative_rms_error"].get<double>(),
                                                 r["beside_snr_db"].get<double>())
                                   : "";
    console.out << fmt::format(
        "{:10}{:>13}{:>12}{:>8.3f}  {:20} {:22} {:25} {:{}}{}\n", role.key(),
        r["parameters"].get<int64_t>(), human_bytes(r["bytes"].get<size_t>()),
        r["bits_per_weight"].get<double>(), text_of(r["formats"]), text_of(r["layouts"]),
        text_of(r["ariths"]), error, theirs.empty() ? 0 : 18, theirs);
  }
}

}  // namespace sluice
