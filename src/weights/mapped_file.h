// MappedFile: a regular file, mapped read-only, that cannot kill the process.
//
// When a mapped file is truncated (or its disk fails), reading the lost pages raises SIGBUS. While
// any MappedFile exists, a handler replaces everything from the lost page to the end of that file's
// mapping by zeros, marks the file as damaged and lets the reader go on; who reads asks health() or
// guard_mapped_reads() afterwards. Faults elsewhere go to the handler that was there before.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>

#include "base/status.h"

namespace sluice {

class MappedFile {
 public:
  // Directories, FIFOs and devices are refused without being opened for reading. An empty file maps
  // to nothing and is no error.
  static Result<std::shared_ptr<MappedFile>> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  const std::string& path() const { return path_; }
  Status health() const;
  // Drops the pages of [p, p + bytes) from this process; they are read again when touched.
  void release_pages(const std::byte* p, size_t bytes) const;
  // Asks for large pages wherever a part of the file is read into memory from now on. Linux gives
  // them where the file system keeps large folios (ext4 from 6.16, XFS, Btrfs); pages that are in
  // memory already stay as they are. Advice only.
  void prefer_large_pages() const;
  // Reads the whole file ahead and maps it, from a thread of its own that ends with the mapping;
  // returns at once. Nothing happens where the file would fill the memory.
  void read_ahead();

 private:
  MappedFile() = default;

  std::string path_;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  int slot_ = -1;  // in the handler's table
  std::atomic<bool> stop_{false};
  std::thread reader_;
};

}  // namespace sluice
