// Directories: which files make up a model, and the index that maps tensors to shards.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/json.h"
#include "weights/safetensors.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";
constexpr size_t kMaxShards = 2000;

bool exists(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

// A file beside the index: no separators, no way up, nothing that a shell or terminal would mind.
bool plain_file_name(const std::string& name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
}

class ShardedSource : public TensorSource {
 public:
  static Result<std::unique_ptr<TensorSource>> open(const std::string& directory,
                                                    const std::string& index_name) {
    auto source = std::make_unique<ShardedSource>();
    source->where_ = directory;
    const std::string index_path = directory + "/" + index_name;
    JsonLimits limits;
    limits.max_depth = 8;
    limits.max_values = 4 * kMaxSafetensorsTensors;
    SLUICE_ASSIGN_OR_RETURN(const json index, read_json_file(index_path, 256u << 20, limits));
    if (Status s = source->read_index(index, directory); !s.ok()) return s.annotate(index_path);
    return std::unique_ptr<TensorSource>(std::move(source));
  }

  const TensorView* find(std::string_view name) const override {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : &tensors_[it->second];
  }
  const std::vector<TensorView>& tensors() const override { return tensors_; }
  const std::string& where() const override { return where_; }
  const std::vector<std::string>& warnings() const override { return warnings_; }
  void release_pages(const std::byte* data, size_t bytes) const override {
    // Every shard knows its own range and leaves others alone.
    for (const auto& shard : shards_) shard->release_pages(data, bytes);
  }
  Status health() const override {
    for (const auto& shard : shards_) SLUICE_RETURN_IF_ERROR(shard->health());
    return ok_status();
  }

 private:
  Status read_index(const json& index, const std::string& directory) {
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
      return data_loss("expected an object with an object \"weight_map\"");
    const json& map = index["weight_map"];
    if (map.empty()) return data_loss("weight_map: expected at least one tensor, got none");
    std::map<std::string, std::vector<std::string>> by_shard;
    for (const auto& item : map.items()) {
      if (!item.value().is_string())
        return data_loss("weight_map: tensor {}: expected a file name, got {}", item.key(),
                         item.value().dump(-1, ' ', true, json::error_handler_t::replace));
      const auto& file = item.value().get_ref<const std::string&>();
      if (!plain_file_name(file))
        return data_loss(
            "weight_map: tensor {}: expected a plain file name without directories, got {}",
            item.key(), json(file).dump(-1, ' ', true, json::error_handler_t::replace));
      by_shard[file].push_back(item.key());
    }
    if (by_shard.size() > kMaxShards)
      return data_loss("expected at most {} shards, got {}", kMaxShards, by_shard.size());
    for (const auto& [file, names] : by_shard) {
      auto shard = open_safetensors_file(fmt::format("{}/{}", directory, file));
      if (!shard.ok()) return shard.status();
      SLUICE_RETURN_IF_ERROR(take_shard(**shard, file, names, map));
      shards_.push_back(std::move(shard).value());
    }
    for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
    return ok_status();
  }

  Status take_shard(const TensorSource& shard, const std::string& file,
                    const std::vector<std::string>& names, const json& map) {
    for (const std::string& name : names) {
      const TensorView* view = shard.find(name);
      if (view == nullptr)
        return data_loss("tensor {}: expected in shard {}, which does not have it", name, file);
      tensors_.push_back(*view);
    }
    for (const TensorView& view : shard.tensors()) {
      const auto it = map.find(view.name);
      if (it == map.end()) {
        warnings_.push_back(fmt::format("tensor {} of {} is not in the index and is ignored",
                                        view.name, view.file));
      } else if (it->get_ref<const std::string&>() != file) {
        return data_loss("tensor {}: stored in two shards, {} and {}", view.name,
                         it->get_ref<const std::string&>(), file);
      }
    }
    return ok_status();
  }

  std::string where_;
  std::vector<std::unique_ptr<TensorSource>> shards_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::vector<std::string> warnings_;
};

}  // namespace

Result<std::unique_ptr<TensorSource>> open_safetensors_index(const std::string& directory,
                                                             const std::string& index_name) {
  return ShardedSource::open(directory, index_name);
}

Result<std::unique_ptr<TensorSource>> open_tensor_source(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0)
    return Status(errno == ENOENT ? StatusCode::kNotFound : StatusCode::kIoError,
                  fmt::format("{}: {}", path, std::strerror(errno)));
  if (!S_ISDIR(st.st_mode)) return open_safetensors_file(path);
  if (exists(fmt::format("{}/{}", path, kIndexName)))
    return open_safetensors_index(path, std::string(kIndexName));
  const std::string single = fmt::format("{}/{}", path, kSingleName);
  if (exists(single)) return open_safetensors_file(single);
  return not_found("{}: expected {} or {} in this directory, found neither", path, kIndexName,
                   kSingleName);
}

}  // namespace sluice
