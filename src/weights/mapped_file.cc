#include "weights/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "base/topology.h"
#include "weights/tensor_source.h"

#ifndef MADV_POPULATE_READ  // older headers
#define MADV_POPULATE_READ 22
#endif

namespace sluice {
namespace {

// What the signal handler may look at: plain atomics in a fixed table. A signal handler belongs to
// the process, so this is the one place of the library that cannot do without process-wide state.
struct Mapping {
  std::atomic<uintptr_t> begin{0}, end{0};  // end is written last and read first
  std::atomic<bool> damaged{false};
};
constexpr int kMaxMappings = 4096;
constexpr size_t kReadAheadPiece = size_t{32} << 20;
struct FaultTable {
  std::array<Mapping, kMaxMappings> mappings;
  std::atomic<int> used{0};  // slots ever used
  std::mutex mutex;          // for adding and removing, never taken in the handler
  struct sigaction previous {};
  bool installed = false;
};
FaultTable& table() {
  static FaultTable* t = new FaultTable;  // never destroyed: a fault may come at any time
  return *t;
}
std::atomic<FaultTable*> g_table{nullptr};
// Faults that this thread met. Initial-exec: the handler must not allocate thread-local storage.
[[gnu::tls_model("initial-exec")]] thread_local std::atomic<uint64_t> t_faults{0};

// The page of `address` in one of our mappings: zeros from there to the mapping's end.
bool repair(FaultTable& t, uintptr_t address) {
  const int used = t.used.load(std::memory_order_acquire);
  for (int i = 0; i < used; ++i) {
    Mapping& m = t.mappings[static_cast<size_t>(i)];
    const uintptr_t end = m.end.load(std::memory_order_acquire);
    const uintptr_t begin = m.begin.load(std::memory_order_acquire);
    if (address < begin || address >= end) continue;
    const uintptr_t page = address & ~uintptr_t{4095};
    void* p = ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return false;
    m.damaged.store(true, std::memory_order_release);
    t_faults.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  FaultTable* t = g_table.load(std::memory_order_acquire);
  const bool repaired = t != nullptr && repair(*t, reinterpret_cast<uintptr_t>(info->si_addr));
  errno = saved;
  if (repaired) return;
  // Not ours: do what would have happened without us.
  if (t != nullptr && (t->previous.sa_flags & SA_SIGINFO) != 0) {
    t->previous.sa_sigaction(signal, info, context);
  } else if (t != nullptr && t->previous.sa_handler != SIG_DFL &&
             t->previous.sa_handler != SIG_IGN) {
    t->previous.sa_handler(signal);
  } else {
    ::signal(signal, SIG_DFL);  // the fault is raised again on return
  }
}

void install_handler(FaultTable& t) {
  if (t.installed) return;
  g_table.store(&t, std::memory_order_release);
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &t.previous);
  t.installed = true;
}

Result<int> add_mapping(uintptr_t begin, uintptr_t end) {
  FaultTable& t = table();
  std::lock_guard lock(t.mutex);
  install_handler(t);
  for (int i = 0; i < kMaxMappings; ++i) {
    Mapping& m = t.mappings[static_cast<size_t>(i)];
    if (m.end.load(std::memory_order_relaxed) != 0) continue;
    m.damaged.store(false, std::memory_order_relaxed);
    m.begin.store(begin, std::memory_order_release);
    m.end.store(end, std::memory_order_release);
    if (i >= t.used.load(std::memory_order_relaxed)) t.used.store(i + 1, std::memory_order_release);
    return i;
  }
  return resource_exhausted("more than {} files are mapped at a time", kMaxMappings);
}

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "directory";
  if (S_ISFIFO(mode)) return "FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "device";
  if (S_ISSOCK(mode)) return "socket";
  return "special file";
}

Status os_error(const std::string& path, std::string_view what) {
  const StatusCode code = errno == ENOENT ? StatusCode::kNotFound : StatusCode::kIoError;
  return {code, fmt::format("{}: {}: {}", path, what, std::strerror(errno))};
}

}  // namespace

Result<std::shared_ptr<MappedFile>> MappedFile::open(const std::string& path) {
  // stat first: opening a device may already do something.
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return os_error(path, "cannot open");
  if (!S_ISREG(st.st_mode))
    return invalid_argument("{}: expected a regular file, got a {}", path, kind_of(st.st_mode));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return os_error(path, "cannot open");
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    return invalid_argument("{}: expected a regular file, got a {}", path, kind_of(st.st_mode));
  }
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->bytes_ = static_cast<size_t>(st.st_size);
  if (file->bytes_ > 0) {
    void* p = ::mmap(nullptr, file->bytes_, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
      const Status status = os_error(path, "cannot map");
      ::close(fd);
      return status;
    }
    file->data_ = static_cast<std::byte*>(p);
  }
  ::close(fd);
  if (file->data_ == nullptr) return file;
  const auto begin = reinterpret_cast<uintptr_t>(file->data_);
  SLUICE_ASSIGN_OR_RETURN(file->slot_,
                          add_mapping(begin, begin + ((file->bytes_ + 4095) & ~size_t{4095})));
  return file;
}

MappedFile::~MappedFile() {
  stop_.store(true);
  if (reader_.joinable()) reader_.join();
  if (slot_ >= 0) {
    FaultTable& t = table();
    std::lock_guard lock(t.mutex);
    // Out of the table before the addresses can be given to somebody else.
    t.mappings[static_cast<size_t>(slot_)].end.store(0, std::memory_order_release);
  }
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

Status MappedFile::health() const {
  if (slot_ < 0 ||
      !table().mappings[static_cast<size_t>(slot_)].damaged.load(std::memory_order_acquire))
    return ok_status();
  return data_loss(
      "{}: the file was truncated or became unreadable while it was in use ({} bytes "
      "expected)",
      path_, bytes_);
}

void MappedFile::release_pages(const std::byte* p, size_t bytes) const {
  if (bytes == 0 || p < data_ || p + bytes > data_ + bytes_) return;
  const auto begin = reinterpret_cast<uintptr_t>(p) & ~uintptr_t{4095};
  const auto end = reinterpret_cast<uintptr_t>(p) + bytes;
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void MappedFile::prefer_large_pages() const {
  if (data_ != nullptr) ::madvise(data_, bytes_, MADV_HUGEPAGE);
}

// MADV_WILLNEED would be one call, but reads into small pages. Populating reads as a fault does, in
// the pages that prefer_large_pages() asked for, and leaves nothing to fault for the kernels.
void MappedFile::read_ahead() {
  if (data_ == nullptr || reader_.joinable() || bytes_ > memory_limit_bytes() / 4 * 3) return;
  reader_ = std::thread([this] {
    for (size_t at = 0; at < bytes_ && !stop_.load(); at += kReadAheadPiece) {
      const size_t count = std::min(kReadAheadPiece, bytes_ - at);
      if (::madvise(data_ + at, count, MADV_POPULATE_READ) == 0) continue;
      // A system before 5.14, or a file that was cut: who reads it will be told.
      if (errno == EINVAL) ::madvise(data_ + at, bytes_ - at, MADV_WILLNEED);
      return;
    }
  });
}

Status guard_mapped_reads(const std::function<Status()>& body) {
  const uint64_t before = t_faults.load(std::memory_order_relaxed);
  Status status = body();
  if (t_faults.load(std::memory_order_relaxed) == before) return status;
  return data_loss("a mapped file was truncated or became unreadable while it was being read");
}

}  // namespace sluice
