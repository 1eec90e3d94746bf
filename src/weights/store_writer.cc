#include "weights/store_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/json.h"
#include "base/output_file.h"
#include "weights/checksum.h"

#ifndef MADV_POPULATE_READ  // older headers
#define MADV_POPULATE_READ 22
#endif

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kJournalName = "journal";
constexpr size_t kMaxBeside = size_t{256} << 20;
constexpr size_t kReadBytes = size_t{4} << 20;
constexpr uint64_t kLargePage = uint64_t{2} << 20;

std::string file_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// The store's place: nothing, an empty directory, or a store and nothing else.
Status check_target(const std::string& store, const std::vector<std::string>& beside) {
  struct stat st {};
  if (::lstat(store.c_str(), &st) != 0) {
    if (errno == ENOENT) return ok_status();
    return io_error("{}: {}", store, std::strerror(errno));
  }
  if (!S_ISDIR(st.st_mode))
    return invalid_argument("{}: expected a packed store or nothing there, got something else",
                            store);
  std::error_code failed;
  for (const fs::directory_entry& e : fs::directory_iterator(store, failed)) {
    const std::string name = e.path().filename().string();
    const bool ours = name == kStoreFileName || name == kJournalName ||
                      std::any_of(beside.begin(), beside.end(),
                                  [&](const std::string& b) { return file_name(b) == name; });
    if (!ours)
      return invalid_argument(
          "{}: expected a packed store or nothing there, got a directory with {}", store, name);
  }
  if (failed) return io_error("{}: {}", store, failed.message());
  return ok_status();
}

uint64_t plan_checksum(const StoreHeader& header, uint64_t inputs) {
  RunningChecksum sum;
  const std::string front = encode_store(header);
  sum.add(front.data(), front.size());
  sum.add(&inputs, sizeof(inputs));
  return sum.value();
}

Status sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return io_error("{}: {}", path, std::strerror(errno));
  const int failed = ::fsync(fd);
  ::close(fd);
  // Some file systems cannot sync a directory, and say so with EINVAL.
  return failed == 0 || errno == EINVAL ? ok_status()
                                        : io_error("{}: {}", path, std::strerror(errno));
}

}  // namespace

StoreWriter::~StoreWriter() {
  if (mapped_ != nullptr) ::munmap(mapped_, header_.file_bytes);
  if (fd_ >= 0) ::close(fd_);
  if (journal_ >= 0) ::close(journal_);
}

Status StoreWriter::os_error(const std::string& path, std::string_view what) const {
  const int error = errno;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG)
    return resource_exhausted(
        "{}: {}: {}: the store takes {} bytes; what is written stays in {}, and the same command "
        "goes on from there",
        path, what, std::strerror(error), header_.file_bytes, partial_);
  return io_error("{}: {}: {}", path, what, std::strerror(error));
}

Result<std::unique_ptr<StoreWriter>> StoreWriter::create(const std::string& store,
                                                         StoreHeader header, uint64_t inputs,
                                                         const std::vector<std::string>& beside) {
  std::unique_ptr<StoreWriter> w(new StoreWriter);
  w->store_ = store;
  while (w->store_.size() > 1 && w->store_.back() == '/') w->store_.pop_back();
  if (w->store_.empty()) return invalid_argument("store: expected a path, got nothing");
  SLUICE_RETURN_IF_ERROR(check_target(w->store_, beside));
  w->partial_ = w->store_ + ".partial";
  w->file_path_ = fmt::format("{}/{}", w->partial_, kStoreFileName);
  w->journal_path_ = fmt::format("{}/{}", w->partial_, kJournalName);
  w->header_ = std::move(header);
  for (const std::string& path : beside) {
    SLUICE_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxBeside));
    w->header_.files.push_back({file_name(path), text.size(), checksum(text.data(), text.size())});
  }
  lay_out_store(w->header_);
  w->done_.assign(w->header_.entries.size(), 0);
  SLUICE_RETURN_IF_ERROR(w->open_partial(plan_checksum(w->header_, inputs)));
  SLUICE_RETURN_IF_ERROR(w->copy_beside(beside));
  return w;
}

Status StoreWriter::open_partial(uint64_t plan) {
  if (::mkdir(partial_.c_str(), 0777) != 0 && errno != EEXIST)
    return os_error(partial_, "cannot make the directory");
  journal_ =
      ::open(journal_path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (journal_ < 0) return os_error(journal_path_, "cannot write");
  if (::flock(journal_, LOCK_EX | LOCK_NB) != 0)
    return resource_exhausted("{}: another pack is writing this store", partial_);
  fd_ = ::open(file_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) return os_error(file_path_, "cannot write");
  SLUICE_ASSIGN_OR_RETURN(const std::string journal,
                          read_text_file(journal_path_, size_t{1} << 30));
  const std::string first = fmt::format("plan {:016x}\n", plan);
  if (journal.starts_with(first)) {
    SLUICE_RETURN_IF_ERROR(reserve());
    return resume(journal.substr(first.size()));
  }
  // Another plan, or none yet: from the beginning.
  if (::ftruncate(journal_, 0) != 0 || ::ftruncate(fd_, 0) != 0)
    return os_error(partial_, "cannot write");
  SLUICE_RETURN_IF_ERROR(reserve());
  if (::write(journal_, first.data(), first.size()) != static_cast<ssize_t>(first.size()))
    return os_error(journal_path_, "cannot write");
  return ok_status();
}

// Room for the whole store now, not after an hour of packing. File systems that cannot promise it
// report a full disk at the write.
Status StoreWriter::reserve() {
  const auto bytes = static_cast<off_t>(header_.file_bytes);
  int result = 0;
  do result = ::fallocate(fd_, 0, 0, bytes);
  while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
    return os_error(file_path_, "cannot reserve the store's bytes");
  if (::ftruncate(fd_, bytes) != 0) return os_error(file_path_, "cannot write");
  map_large();
  return ok_status();
}

// "done ENTRY CHECKSUM ERROR SIGNAL BESIDE": counts if the bytes are still there.
bool StoreWriter::recall(const std::string& line) {
  size_t i = 0;
  unsigned long long sum = 0;
  Loss loss;
  if (std::sscanf(line.c_str(), "done %zu %llx %la %la %la", &i, &sum, &loss.error, &loss.signal,
                  &loss.beside) != 5)
    return false;
  if (i >= done_.size() || done_[i]) return false;
  StoreEntry& e = header_.entries[i];
  make_large(e.offset, e.bytes);
  RunningChecksum running;
  std::string buffer(std::min<size_t>(e.bytes, kReadBytes), '\0');
  for (uint64_t at = 0; at < e.bytes; at += buffer.size()) {
    const size_t want = std::min<size_t>(buffer.size(), e.bytes - at);
    if (::pread(fd_, buffer.data(), want, static_cast<off_t>(e.offset + at)) !=
        static_cast<ssize_t>(want))
      return false;
    running.add(buffer.data(), want);
  }
  if (running.value() != sum) return false;
  note(i, sum, loss);
  return true;
}

Status StoreWriter::resume(const std::string& journal) {
  // A line that a crash cut has no end and is not read.
  for (size_t at = 0, end = 0; (end = journal.find('\n', at)) != journal.npos; at = end + 1)
    resumed_ += recall(journal.substr(at, end - at)) ? 1 : 0;
  // Ends that cut line.
  if (!journal.empty() && journal.back() != '\n' && ::write(journal_, "\n", 1) != 1)
    return os_error(journal_path_, "cannot write");
  return ok_status();
}

Status StoreWriter::copy_beside(const std::vector<std::string>& beside) {
  for (const std::string& path : beside) {
    SLUICE_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxBeside));
    SLUICE_ASSIGN_OR_RETURN(const auto file, OutputFile::create(partial_ + "/" + file_name(path)));
    SLUICE_RETURN_IF_ERROR(file->write(text.data(), text.size()));
    SLUICE_RETURN_IF_ERROR(file->commit());
  }
  return ok_status();
}

// The kernels stream the file from the page cache, and small pages cost them 5 to 10 % (README of
// bench/store). A write keeps the pages that are there and else makes small ones; so the pages are
// made first, by reading through a mapping that asks for large ones. Where that does not work, the
// store is no different, only slower until it is read from the disk.
void StoreWriter::map_large() {
  void* p = ::mmap(nullptr, header_.file_bytes, PROT_READ, MAP_SHARED, fd_, 0);
  if (p == MAP_FAILED) return;
  mapped_ = static_cast<std::byte*>(p);
  ::madvise(p, header_.file_bytes, MADV_HUGEPAGE);
}
void StoreWriter::make_large(uint64_t at, size_t bytes) const {
  if (mapped_ == nullptr) return;
  const uint64_t begin = at / kLargePage * kLargePage;
  const uint64_t end =
      std::min(header_.file_bytes, (at + bytes + kLargePage - 1) / kLargePage * kLargePage);
  ::madvise(mapped_ + begin, end - begin, MADV_POPULATE_READ);
}

Status StoreWriter::write_at(const void* data, size_t bytes, uint64_t at) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_, p, bytes, static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_error(file_path_, "cannot write");
    p += n;
    at += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
  return ok_status();
}

Status StoreWriter::write(size_t entry, uint64_t at, const void* data, size_t bytes) {
  const StoreEntry& e = header_.entries[entry];
  if (at > e.bytes || bytes > e.bytes - at)
    return internal_error("{}: tensor {}: {} bytes at {} are outside of it", file_path_, e.name,
                          bytes, at);
  make_large(e.offset + at, bytes);
  return write_at(data, bytes, e.offset + at);
}

void StoreWriter::note(size_t entry, uint64_t sum, const Loss& loss) {
  StoreEntry& e = header_.entries[entry];
  e.checksum = sum;
  e.error = loss.error;
  e.signal = loss.signal;
  e.beside = loss.beside;
  done_[entry] = 1;
}

Status StoreWriter::finish(size_t entry, uint64_t sum, const Loss& loss) {
  std::lock_guard lock(mutex_);
  const std::string line = fmt::format("done {} {:016x} {:a} {:a} {:a}\n", entry, sum, loss.error,
                                       loss.signal, loss.beside);
  if (::write(journal_, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    return os_error(journal_path_, "cannot write");
  note(entry, sum, loss);
  return ok_status();
}

Status StoreWriter::commit() {
  for (size_t i = 0; i < done_.size(); ++i)
    if (!done_[i])
      return internal_error("{}: tensor {} was not written", file_path_, header_.entries[i].name);
  const std::string front = encode_store(header_);
  SLUICE_RETURN_IF_ERROR(write_at(front.data(), front.size(), 0));
  if (::fsync(fd_) != 0 && errno != EINVAL) return os_error(file_path_, "cannot write");
  SLUICE_RETURN_IF_ERROR(sync_directory(partial_));
  const bool replaces = ::access(store_.c_str(), F_OK) == 0;
  const unsigned flags = replaces ? RENAME_EXCHANGE : RENAME_NOREPLACE;
  if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, store_.c_str(), flags) != 0)
    return os_error(store_, "cannot rename");
  ::unlink(fmt::format("{}/{}", store_, kJournalName).c_str());
  std::error_code ignored;
  if (replaces) fs::remove_all(partial_, ignored);  // the store that was there: check_target()
  const size_t slash = store_.rfind('/');
  return sync_directory(slash == store_.npos ? "." : slash == 0 ? "/" : store_.substr(0, slash));
}

}  // namespace sluice
