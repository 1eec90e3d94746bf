// A packed store with more layers than another: layer l has the bytes of layer l mod n of the n
// that there are. A model whose directory would not fit on the disk becomes a store whose every
// layer has pages of its own; times do not depend on the values. (Its header still names the
// smaller model.)
//
//   bench_store_stack STORE OUT LAYERS
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/output_file.h"
#include "weights/checksum.h"
#include "weights/store.h"
#include "weights/store_writer.h"

namespace {

using namespace sluice;

constexpr size_t kMostConfigBytes = size_t{16} << 20;

// "layers.7." of a name: where the number stands, or npos.
size_t number_at(const std::string& name) {
  const size_t at = name.find("layers.");
  return at == std::string::npos ? at : at + 7;
}
int64_t layer_of(const std::string& name) {
  const size_t at = number_at(name);
  return at == std::string::npos ? -1 : std::atoll(name.c_str() + at);
}
std::string in_layer(const std::string& name, int64_t layer) {
  const size_t at = number_at(name);
  return name.substr(0, at) + std::to_string(layer) + name.substr(name.find('.', at));
}

// config.json with so many layers, into a directory of its own.
Status write_config(const std::string& from, const std::string& to, int64_t layers) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, read_text_file(from, kMostConfigBytes));
  auto config = nlohmann::ordered_json::parse(text, nullptr, false);
  if (!config.is_object()) return data_loss("{}: expected a JSON object", from);
  auto& c = config.contains("text_config") ? config["text_config"] : config;
  c["num_hidden_layers"] = layers;
  if (c.contains("layer_types") && c["layer_types"].is_array() && !c["layer_types"].empty()) {
    const auto types = c["layer_types"];
    c["layer_types"] = nlohmann::ordered_json::array();
    for (size_t l = 0; l < static_cast<size_t>(layers); ++l)
      c["layer_types"].push_back(types[l % types.size()]);
  }
  SLUICE_ASSIGN_OR_RETURN(const auto file, OutputFile::create(to));
  const std::string out = config.dump(2) + "\n";
  SLUICE_RETURN_IF_ERROR(file->write(out.data(), out.size()));
  return file->commit();
}

// The plan of the new store, and for each of its entries the one whose bytes it has.
struct Plan {
  StoreHeader header;
  std::vector<const StoreEntry*> from;
};
Plan make_plan(const StoreHeader& header, int64_t layers) {
  Plan plan;
  plan.header = header;
  plan.header.entries.clear();
  plan.header.files.clear();
  int64_t given = 0;
  for (const StoreEntry& e : header.entries) given = std::max(given, layer_of(e.name) + 1);
  const auto add = [&](const StoreEntry& e, std::string name) {
    plan.from.push_back(&e);
    plan.header.entries.push_back(e);
    plan.header.entries.back().name = std::move(name);
  };
  for (const StoreEntry& e : header.entries)
    if (layer_of(e.name) < 0) add(e, e.name);
  for (int64_t l = 0; l < layers; ++l)
    for (const StoreEntry& e : header.entries)
      if (layer_of(e.name) == l % given) add(e, in_layer(e.name, l));
  return plan;
}

Status stack(const std::string& store, const std::string& out, int64_t layers) {
  SLUICE_ASSIGN_OR_RETURN(const auto source, PackedStore::open(store));
  const Plan plan = make_plan(source->header(), layers);
  const std::string beside = out + ".config";
  if (::mkdir(beside.c_str(), 0777) != 0 && errno != EEXIST)
    return io_error("{}: cannot make the directory: {}", beside, std::strerror(errno));
  std::vector<std::string> files = {beside + "/config.json"};
  SLUICE_RETURN_IF_ERROR(write_config(store + "/config.json", files[0], layers));
  for (const StoreFile& f : source->header().files)
    if (f.name != "config.json") files.push_back(store + "/" + f.name);
  SLUICE_ASSIGN_OR_RETURN(const auto writer, StoreWriter::create(out, plan.header, 0, files));
  for (size_t i = 0; i < plan.from.size(); ++i) {
    if (writer->done(i)) continue;
    const StoreEntry& e = *plan.from[i];
    const std::byte* data = source->payload() + (e.offset - source->header().payload);
    SLUICE_RETURN_IF_ERROR(writer->write(i, 0, data, e.bytes));
    SLUICE_RETURN_IF_ERROR(writer->finish(i, e.checksum, {e.error, e.signal, 0}));
  }
  SLUICE_RETURN_IF_ERROR(writer->commit());
  std::error_code ignored;
  std::filesystem::remove_all(beside, ignored);
  return source->health();
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t layers = argc == 4 ? std::atoll(argv[3]) : 0;
  if (layers < 1) {
    std::fprintf(stderr, "usage: bench_store_stack STORE OUT LAYERS\n");
    return 2;
  }
  const Status status = stack(argv[1], argv[2], layers);
  if (!status.ok()) std::fprintf(stderr, "bench_store_stack: %s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
