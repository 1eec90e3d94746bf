#include "cli/pack.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/load.h"
#include "cli/store_report.h"
#include "model/pack_store.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

Result<WeightFormat> format_of(std::string_view option, const std::string& name) {
  Result<WeightFormat> format = store_format_from_name(name);
  if (!format.ok()) return format.status().annotate(option);
  return format;
}

Result<PackOptions> pack_options(const PackCommandOptions& o) {
  PackOptions out;
  SLUICE_ASSIGN_OR_RETURN(out.weights, format_of("weights", o.weights));
  if (!o.dense.empty()) {
    SLUICE_ASSIGN_OR_RETURN(out.dense, format_of("dense", o.dense));
  }
  if (!o.head.empty()) {
    SLUICE_ASSIGN_OR_RETURN(out.head, format_of("head", o.head));
  }
  out.group = o.group;
  out.nearest = o.nearest;
  const WeightFormat formats[] = {out.weights, out.dense_or_default(), out.head_or_default()};
  const bool grouped = std::any_of(std::begin(formats), std::end(formats), [](WeightFormat f) {
    return f == WeightFormat::kInt4 || f == WeightFormat::kInt8;
  });
  if (out.group != PackOptions().group && !grouped)
    return invalid_argument("group: is for int4 and int8; nothing is packed so");
  return out;
}

Status verify(Runtime& runtime, const std::string& path, ordered_json* report, Console& console) {
  const double start = now_seconds();
  if (!is_packed_store(path))
    return invalid_argument("{}: expected a packed store to verify, found no {} in it", path,
                            kStoreFileName);
  SLUICE_ASSIGN_OR_RETURN(const auto store, PackedStore::open(path));
  Progress progress(console, "verifying");
  SLUICE_RETURN_IF_ERROR(store->verify(runtime.pool(), [&](uint64_t done, uint64_t total) {
    progress.update(done, total);
    return !interrupted();
  }));
  (*report)["verified"] = {{"store", path},
                           {"tensors", store->header().entries.size()},
                           {"bytes", store->header().file_bytes},
                           {"seconds", now_seconds() - start}};
  return ok_status();
}

Result<PackReport> pack(Runtime& runtime, const PackCommandOptions& o, Console& console) {
  SLUICE_ASSIGN_OR_RETURN(PackOptions options, pack_options(o));
  Progress progress(console, "packing");
  options.progress = [&](uint64_t done, uint64_t total) {
    progress.update(done, total);
    return !interrupted();
  };
  return pack_store(runtime, o.model, o.out, options);
}

void print_pack(const PackCommandOptions& o, const ordered_json& report, Console& console) {
  print_store_roles(report["roles"], console);
  console.out << fmt::format(
      "{}: {} tensors, {}, {:.1f} s{}\n", o.out, report["tensors"].size(),
      human_bytes(report["bytes"].get<size_t>()), report["seconds"].get<double>(),
      report["resumed_tensors"] == 0 ? ""
                                     : fmt::format(", {} tensors from an earlier pack",
                                                   report["resumed_tensors"].get<size_t>()));
}

}  // namespace

Status run_pack(const PackCommandOptions& o, Console& console) {
  if (o.out.empty() && !o.verify)
    return invalid_argument("expected -o STORE, or --verify and a store");
  SLUICE_ASSIGN_OR_RETURN(const auto runtime, Runtime::create({.threads = o.threads}));
  ordered_json report = ordered_json::object();
  if (!o.out.empty()) {
    const Result<PackReport> packed = pack(*runtime, o, console);
    if (packed.status().code() == StatusCode::kCancelled)
      console.err << fmt::format(
          "sluice pack: what is written stays in {}.partial; the same command goes on from there\n",
          o.out);
    SLUICE_RETURN_IF_ERROR(packed.status());
    const StoreHeader& header = packed->header;
    report["store"] = o.out;
    report["bytes"] = header.file_bytes;
    report["seconds"] = packed->seconds;
    report["resumed_tensors"] = packed->resumed;
    report["computes"] = header.fits_f32 && header.fits_bf16 ? ordered_json({"bf16", "f32"})
                         : header.fits_f32                   ? ordered_json({"f32"})
                                                             : ordered_json({"bf16"});
    report["roles"] = store_roles_json(header);
    report["tensors"] = store_tensors_json(header);
    if (!o.json) print_pack(o, report, console);
  }
  if (o.verify) {
    SLUICE_RETURN_IF_ERROR(verify(*runtime, o.out.empty() ? o.model : o.out, &report, console));
    if (!o.json)
      console.out << fmt::format("{}: {} tensors are what was packed, {:.1f} s\n",
                                 report["verified"]["store"].get<std::string>(),
                                 report["verified"]["tensors"].get<size_t>(),
                                 report["verified"]["seconds"].get<double>());
  }
  if (o.json)
    console.out << report.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
  return ok_status();
}

}  // namespace sluice
