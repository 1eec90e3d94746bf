// Writing a packed store: in any order, from many threads, resumable, whole or not at all.
//
// A store grows in the directory STORE.partial, beside a journal that says which tensors are there.
// commit() writes header and index, and renames the directory; where a store was, the two change
// places and the old one is removed. Whatever ends a pack (Ctrl-C, a full disk, a crash), the next
// one with the same plan and inputs goes on: a journal entry counts if the tensor's bytes still
// have its checksum. Two packs of one store at a time are refused.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "weights/store_format.h"

namespace sluice {

class StoreWriter {
 public:
  // `header` is the plan: names and shapes of all entries, laid out here. `inputs` is a checksum of
  // all that the tensors are made from. `beside` are paths of files to copy; names that already
  // stand in header.files are refused. `store` must be absent, empty, or a store.
  static Result<std::unique_ptr<StoreWriter>> create(const std::string& store, StoreHeader header,
                                                     uint64_t inputs,
                                                     const std::vector<std::string>& beside);
  ~StoreWriter();
  StoreWriter(const StoreWriter&) = delete;
  StoreWriter& operator=(const StoreWriter&) = delete;

  const StoreHeader& header() const { return header_; }
  bool done(size_t entry) const { return done_[entry]; }
  // Entries that an earlier pack left behind.
  size_t resumed() const { return resumed_; }
  // Bytes of an entry from `at` on. Thread-safe.
  Status write(size_t entry, uint64_t at, const void* data, size_t bytes);
  // All bytes of the entry are written, with that loss (StoreEntry). Thread-safe.
  struct Loss {
    double error = 0, signal = 0, beside = 0;
  };
  Status finish(size_t entry, uint64_t checksum, const Loss& loss);
  // Every entry is finished: the store takes its place.
  Status commit();

 private:
  StoreWriter() = default;
  Status open_partial(uint64_t plan);
  Status reserve();
  Status resume(const std::string& journal);
  bool recall(const std::string& line);
  void note(size_t entry, uint64_t checksum, const Loss& loss);
  Status copy_beside(const std::vector<std::string>& beside);
  Status write_at(const void* data, size_t bytes, uint64_t at);
  void map_large();
  void make_large(uint64_t at, size_t bytes) const;
  Status os_error(const std::string& path, std::string_view what) const;

  std::string store_, partial_, file_path_, journal_path_;
  StoreHeader header_;
  std::vector<char> done_;
  std::mutex mutex_;
  size_t resumed_ = 0;
  int fd_ = -1, journal_ = -1;
  std::byte* mapped_ = nullptr;  // the whole file, read-only; or null
};

}  // namespace sluice
