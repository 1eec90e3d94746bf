#include "base/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluice {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "directory";
  if (S_ISLNK(mode)) return "symbolic link";
  if (S_ISFIFO(mode)) return "FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "device";
  return "special file";
}

Status check_target(const std::string& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return ok_status();
    return io_error("{}: cannot write: {}", path, std::strerror(errno));
  }
  if (S_ISREG(st.st_mode)) return ok_status();
  return invalid_argument("{}: cannot write: expected a regular file or nothing there, got a {}",
                          path, kind_of(st.st_mode));
}

}  // namespace

Result<std::unique_ptr<OutputFile>> OutputFile::create(const std::string& path) {
  SLUICE_RETURN_IF_ERROR(check_target(path));
  std::unique_ptr<OutputFile> file(new OutputFile);
  file->path_ = path;
  for (int attempt = 0; attempt < 100 && file->fd_ < 0; ++attempt) {
    file->temporary_ = fmt::format("{}.{}-{}.tmp", path, ::getpid(), attempt);
    file->fd_ = ::open(file->temporary_.c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file->fd_ < 0 && errno != EEXIST) break;
  }
  if (file->fd_ < 0) return io_error("{}: cannot write: {}", path, std::strerror(errno));
  return file;
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

Status OutputFile::os_error(std::string_view what) const {
  const StatusCode code =
      errno == ENOSPC || errno == EDQUOT ? StatusCode::kResourceExhausted : StatusCode::kIoError;
  return {code, fmt::format("{}: {} after {} bytes: {}", path_, what, written_ - buffer_.size(),
                            std::strerror(errno))};
}

Status OutputFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_error("cannot write");
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
  return ok_status();
}

Status OutputFile::write(const void* data, size_t bytes) {
  if (fd_ < 0) return internal_error("{}: written after it was closed", path_);
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const size_t n = std::min(bytes, kBufferBytes - buffer_.size());
    buffer_.append(p, n);
    written_ += n;
    p += n;
    bytes -= n;
    if (buffer_.size() == kBufferBytes) SLUICE_RETURN_IF_ERROR(flush());
  }
  return ok_status();
}

Status OutputFile::commit() {
  if (fd_ < 0) return internal_error("{}: committed twice", path_);
  SLUICE_RETURN_IF_ERROR(flush());
  // Disks that are full or far away may only say so here.
  if (::fsync(fd_) != 0 && errno != EINVAL) return os_error("cannot write");
  SLUICE_RETURN_IF_ERROR(check_target(path_));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return os_error("cannot rename");
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0) return os_error("cannot close");
  return ok_status();
}

}  // namespace sluice
