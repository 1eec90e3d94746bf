// OutputFile: a file that appears whole or not at all.
//
// Bytes go to a temporary name beside the target, which is renamed onto it by commit(). The target
// must not exist or be a regular file: a directory, link, FIFO or device is refused. Without a
// commit, or after any error (a full disk), the temporary is removed and the target is as it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace sluice {

class OutputFile {
 public:
  static Result<std::unique_ptr<OutputFile>> create(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  Status write(const void* data, size_t bytes);
  // Writes what is buffered and puts the file in its place.
  Status commit();
  uint64_t bytes_written() const { return written_; }

 private:
  OutputFile() = default;
  Status flush();
  Status os_error(std::string_view what) const;

  std::string path_, temporary_, buffer_;
  int fd_ = -1;
  uint64_t written_ = 0;
};

}  // namespace sluice
