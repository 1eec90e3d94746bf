#include "weights/store.h"

#include <sys/stat.h>

#include <atomic>
#include <cstring>

#include "base/json.h"
#include "base/parallel_jobs.h"
#include "weights/checksum.h"

namespace sluice {

bool is_packed_store(const std::string& path) {
  struct stat st {};
  return ::lstat(fmt::format("{}/{}", path, kStoreFileName).c_str(), &st) == 0;
}

Result<std::unique_ptr<PackedStore>> PackedStore::open(const std::string& directory) {
  auto store = std::make_unique<PackedStore>();
  store->directory_ = directory;
  const std::string path = fmt::format("{}/{}", directory, kStoreFileName);
  SLUICE_ASSIGN_OR_RETURN(store->file_, MappedFile::open(path));
  store->file_->prefer_large_pages();
  const MappedFile& file = *store->file_;
  Result<StoreHeader> header = internal_error("not parsed");
  SLUICE_RETURN_IF_ERROR(guard_mapped_reads([&] {
    header = parse_store(file.data(), file.bytes(), path);
    return header.status();
  }));
  store->header_ = std::move(header).value();
  for (size_t i = 0; i < store->header_.entries.size(); ++i)
    store->by_name_.emplace(store->header_.entries[i].name, i);
  store->make_views();
  for (const StoreFile& f : store->header_.files)
    if (f.name == "config.json") SLUICE_RETURN_IF_ERROR(store->check_file(f));
  return store;
}

void PackedStore::make_views() {
  for (const StoreEntry& e : header_.entries) {
    if (!e.vector && e.layout != WeightLayout::kRowMajor) continue;
    TensorView view;
    view.name = e.name;
    view.dtype = e.format == WeightFormat::kBF16  ? DType::kBF16
                 : e.format == WeightFormat::kF16 ? DType::kF16
                                                  : DType::kF32;
    view.shape = e.vector ? std::vector<int64_t>{e.n} : std::vector<int64_t>{e.n, e.k};
    view.data = file_->data() + e.offset;
    view.bytes = e.bytes;
    view.file = file_->path();
    views_.push_back(std::move(view));
  }
}

const StoreEntry* PackedStore::entry(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &header_.entries[it->second];
}

const TensorView* PackedStore::find(std::string_view name) const {
  for (const TensorView& v : views_)
    if (v.name == name) return &v;
  return nullptr;
}

PackedMatrix PackedStore::matrix(const StoreEntry& e) const {
  PackedMatrix m;
  m.format = e.format;
  m.layout = e.layout;
  m.storage = StorageKind::kMapped;
  m.n = e.n;
  m.k = e.k;
  if (is_int_format(e.format)) m.block = e.block;
  m.data = file_->data() + e.offset;
  m.bytes = e.bytes;
  m.owner = file_;
  return m;
}

std::vector<float> PackedStore::vector(const StoreEntry& e) const {
  std::vector<float> out(static_cast<size_t>(e.n));
  std::memcpy(out.data(), file_->data() + e.offset, e.bytes);
  return out;
}

std::string PackedStore::remake() const {
  return pack_command(header_.model, directory_, header_.options);
}

Status PackedStore::check_file(const StoreFile& f) const {
  const std::string path = directory_ + "/" + f.name;
  SLUICE_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, size_t{1} << 30));
  if (text.size() == f.bytes && checksum(text.data(), text.size()) == f.checksum)
    return ok_status();
  return data_loss("{}: not the file that was packed (checksum); make the store again: {}", path,
                   remake());
}

Status PackedStore::verify_entry(const StoreEntry& e) const {
  uint64_t sum = 0;
  SLUICE_RETURN_IF_ERROR(guard_mapped_reads([&] {
    sum = checksum(file_->data() + e.offset, e.bytes);
    return ok_status();
  }));
  if (sum == e.checksum) return ok_status();
  return data_loss(
      "{}: tensor {} is damaged (checksum {:016x}, expected {:016x}); make the store "
      "again: {}",
      file_->path(), e.name, sum, e.checksum, remake());
}

Status PackedStore::verify(ThreadPool& pool,
                           const std::function<bool(uint64_t, uint64_t)>& progress) const {
  for (const StoreFile& f : header_.files) SLUICE_RETURN_IF_ERROR(check_file(f));
  uint64_t total = 0;
  for (const StoreEntry& e : header_.entries) total += e.bytes;
  std::atomic<uint64_t> done{0};
  const auto verify_one = [&](int64_t i) {
    const StoreEntry& e = header_.entries[static_cast<size_t>(i)];
    SLUICE_RETURN_IF_ERROR(verify_entry(e));
    done += e.bytes;
    return ok_status();
  };
  SLUICE_RETURN_IF_ERROR(run_jobs(
      pool, std::ssize(header_.entries), verify_one,
      [&] { return !progress || progress(done.load(), total); }, "verifying was cancelled"));
  return file_->health();
}

}  // namespace sluice
