#include "cli/inspect_print.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/store_report.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

std::string shape_of(const ordered_json& shape) {
  return fmt::format("[{}]", fmt::join(shape.get<std::vector<int64_t>>(), ", "));
}

std::string count(int64_t n) {
  if (n >= 100'000'000) return fmt::format("{:.3f} B", static_cast<double>(n) / 1e9);
  if (n >= 100'000) return fmt::format("{:.3f} M", static_cast<double>(n) / 1e6);
  return fmt::format("{}", n);
}

std::string text_of(const ordered_json& j) {
  return j.get<std::string>();
}

void print_attention(const ordered_json& a, Console& console) {
  console.out << fmt::format("    attention   H {} G {} C {}, {}", a["heads"].get<int>(),
                             a["kv_heads"].get<int>(), a["head_size"].get<int>(),
                             a["window"] == 0
                                 ? "every earlier key"
                                 : fmt::format("the latest {} keys", a["window"].get<int64_t>()));
  for (const auto& [field, words] : {std::pair{"k_is_v", "V is K's projection"},
                                     {"qk_norm", "q and k normed"},
                                     {"v_norm", "v normed"},
                                     {"qkv_bias", "biases"},
                                     {"sinks", "sinks"}})
    if (a[field].get<bool>()) console.out << ", " << words;
  console.out << "\n";
}

void print_spec(const ordered_json& s, Console& console) {
  console.out << fmt::format(
      "{}: {} layers, D {}, V {}, context {}, {}\n", text_of(s["model_type"]), s["L"].get<int>(),
      s["D"].get<int>(), s["V"].get<int>(), s["context"].get<int64_t>(),
      s["tied_head"].get<bool>() ? "head tied to the embedding" : "a head of its own");
  for (const ordered_json& l : s["layers"]) {
    console.out << "  layers " << text_of(l["layers"]) << "\n";
    print_attention(l["attention"], console);
    if (l.contains("dense"))
      console.out << fmt::format("    dense       I {}, {}\n", l["dense"]["width"].get<int>(),
                                 text_of(l["dense"]["activation"]));
    if (!l.contains("moe")) continue;
    const ordered_json& m = l["moe"];
    console.out << fmt::format("    experts     E {} K {} I {}, {}, {}{}\n",
                               m["experts"].get<int>(), m["k"].get<int>(), m["width"].get<int>(),
                               text_of(m["activation"]), text_of(m["score"]),
                               m["renormalise"].get<bool>() ? ", renormalised" : "");
  }
}

void print_tensors(const ordered_json& tensors, Console& console) {
  if (tensors.empty()) return;
  size_t width = 0;
  for (const ordered_json& t : tensors) width = std::max(width, text_of(t["name"]).size());
  console.out << fmt::format("\n{:{}}  {:12}{:14}{:20}{:>9} {:>7} {:>10}  layers\n", "tensor",
                             width, "role", "letters", "shape", "dtype", "packed", "stored");
  for (const ordered_json& t : tensors)
    console.out << fmt::format("{:{}}  {:12}{:14}{:20}{:>9} {:>7} {:>10}  {}\n", text_of(t["name"]),
                               width, text_of(t["role"]), text_of(t["letters"]),
                               shape_of(t["shape"]), text_of(t["dtype"]), text_of(t["packed"]),
                               human_bytes(t["stored_bytes"].get<size_t>()), text_of(t["layers"]));
}

void print_costs(const ordered_json& report, Console& console) {
  console.out << fmt::format("\n{:12}{:>12}{:>12}{:>12}\n", "role", "parameters", "memory",
                             "mapped");
  for (const auto& role : report["roles"].items())
    console.out << fmt::format("{:12}{:>12}{:>12}{:>12}\n", role.key(),
                               count(role.value()["parameters"].get<int64_t>()),
                               human_bytes(role.value()["bytes"].get<size_t>()),
                               human_bytes(role.value()["mapped_bytes"].get<size_t>()));
  console.out << fmt::format("{:12}{:>12}   of which {} are read per token\n", "all",
                             count(report["parameters"].get<int64_t>()),
                             count(report["active_parameters"].get<int64_t>()));
  for (const ordered_json& g : report["kv"])
    console.out << fmt::format(
        "KV cache of layers {}: {} bytes per token{}\n", text_of(g["layers"]),
        g["bytes_per_token"].get<size_t>(),
        g["window"] == 0 ? "" : fmt::format(", the latest {} tokens", g["window"].get<int64_t>()));
  const ordered_json& m = report["memory"];
  console.out << fmt::format(
      "memory for {} tokens in {}: {} (weights {}, KV {}, buffers {}); this machine has {}\n",
      m["tokens"].get<int64_t>(), text_of(report["compute"]),
      human_bytes(m["peak_bytes"].get<size_t>()), human_bytes(m["weights_bytes"].get<size_t>()),
      human_bytes(m["kv_bytes"].get<size_t>()), human_bytes(m["state_bytes"].get<size_t>()),
      human_bytes(m["machine_bytes"].get<size_t>()));
  if (report.contains("store"))
    console.out << fmt::format("beside that, {} are read where the store is mapped\n",
                               human_bytes(m["mapped_bytes"].get<size_t>()));
}

}  // namespace

void print_inspection(const ordered_json& report, Console& console) {
  if (report.contains("spec")) print_spec(report["spec"], console);
  if (report.contains("store")) {
    const ordered_json& store = report["store"];
    console.out << fmt::format(
        "\npacked store, version {}, panel layout {}: {} tensors, {}, for compute {}\nmade by: "
        "{}\n\n",
        store["version"].get<int>(), store["layout_id"].get<int>(), store["tensors"].get<size_t>(),
        human_bytes(store["bytes"].get<size_t>()),
        store["fits_bf16"].get<bool>() ? store["fits_f32"].get<bool>() ? "bf16 and f32" : "bf16"
                                       : "f32",
        text_of(store["made_by"]));
    print_store_roles(store["roles"], console);
  } else {
    print_tensors(report["tensors"], console);
    if (report.contains("loaded_roles")) {
      console.out << "\nas it would be loaded for compute " << text_of(report["compute"]) << ":\n";
      print_store_roles(report["loaded_roles"], console);
    }
  }
  if (report.contains("files"))
    console.out << fmt::format("files: {} tensors, {}, {} of them no part of the text model\n",
                               report["files"]["tensors"].get<size_t>(),
                               human_bytes(report["files"]["bytes"].get<size_t>()),
                               report["files"]["ignored_tensors"].get<size_t>());
  if (report.contains("memory")) print_costs(report, console);
  for (const ordered_json& w : report["warnings"]) console.out << "warning: " << text_of(w) << "\n";
  if (report["loads"].get<bool>()) {
    console.out << "It will load.\n";
    return;
  }
  console.out << fmt::format("\nIt will not load ({} reason{}):\n", report["problems"].size(),
                             report["problems"].size() == 1 ? "" : "s");
  for (const ordered_json& p : report["problems"]) console.out << "  " << text_of(p) << "\n";
}

}  // namespace sluice
