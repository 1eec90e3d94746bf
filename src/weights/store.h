// PackedStore: a packed store opened for reading (store_format.h describes the file).
//
// Opening maps the file and checks its header, index and size, and config.json; matrices are then
// pointers into the mapping, without a copy.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/thread_pool.h"
#include "weights/mapped_file.h"
#include "weights/store_format.h"
#include "weights/tensor_source.h"

namespace sluice {

// Whether a path is a directory with a packed store in it, whole or damaged.
bool is_packed_store(const std::string& path);

class PackedStore : public TensorSource {
 public:
  static Result<std::unique_ptr<PackedStore>> open(const std::string& directory);

  const StoreHeader& header() const { return header_; }
  // nullptr when there is no such tensor.
  const StoreEntry* entry(std::string_view name) const;
  // Storage kMapped; valid as long as anybody holds it.
  PackedMatrix matrix(const StoreEntry& entry) const;
  std::vector<float> vector(const StoreEntry& entry) const;
  // The mapped bytes of all tensors: header().file_bytes - header().payload of them.
  const std::byte* payload() const { return file_->data() + header_.payload; }
  // Compares every tensor and every file beside with its checksum; the first that differs speaks.
  // `progress` is called from this thread with bytes done and in all; false cancels.
  Status verify(ThreadPool& pool, const std::function<bool(uint64_t, uint64_t)>& progress) const;
  // How to make this store again.
  std::string remake() const;

  // Vectors and row-major matrices, as plain views. Panels are no views: see matrix().
  const TensorView* find(std::string_view name) const override;
  const std::vector<TensorView>& tensors() const override { return views_; }
  const std::string& where() const override { return directory_; }
  const std::vector<std::string>& warnings() const override { return warnings_; }
  void release_pages(const std::byte* data, size_t bytes) const override {
    file_->release_pages(data, bytes);
  }
  Status health() const override { return file_->health(); }
  void read_ahead() const { file_->read_ahead(); }

 private:
  Status check_file(const StoreFile& file) const;
  Status verify_entry(const StoreEntry& entry) const;
  void make_views();

  std::string directory_;
  std::shared_ptr<MappedFile> file_;
  StoreHeader header_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::vector<TensorView> views_;
  std::vector<std::string> warnings_;
};

}  // namespace sluice
