#include "weights/store_format.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "weights/checksum.h"

namespace sluice {
namespace {

constexpr std::string_view kMagic = "\x89SLUICE\n";
constexpr uint32_t kByteOrder = 0x01020304;
constexpr size_t kChecksumAt = 120, kTextAt = 128;
constexpr uint64_t kPageFrom = 64 << 10;  // tensors of this size start at a page
constexpr size_t kMaxFiles = 64;
constexpr int64_t kMaxSide = int64_t{1} << 31, kMaxElements = int64_t{1} << 46;
constexpr std::string_view kVector = "vector";

uint64_t up(uint64_t v, uint64_t to) {
  return (v + to - 1) / to * to;
}

template <class T>
void put(std::string& out, T v) {
  out.append(reinterpret_cast<const char*>(&v), sizeof(T));
}
void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<uint16_t>(text.size()));
  out += text;
}
template <class T>
T get(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}

// Reads fields one after the other; after the end, zeros and ok() is false.
class FieldReader {
 public:
  FieldReader(const std::byte* p, size_t bytes) : p_(p), left_(bytes) {}
  template <class T>
  T take() {
    T v{};
    if (!has(sizeof(T))) return v;
    std::memcpy(&v, p_, sizeof(T));
    skip(sizeof(T));
    return v;
  }
  std::string text() {
    const size_t size = take<uint16_t>();
    if (!has(size)) return {};
    std::string out(reinterpret_cast<const char*>(p_), size);
    skip(size);
    return out;
  }
  bool ok() const { return ok_; }
  size_t left() const { return left_; }

 private:
  bool has(size_t bytes) { return ok_ = ok_ && bytes <= left_; }
  void skip(size_t bytes) {
    p_ += bytes;
    left_ -= bytes;
  }
  const std::byte* p_;
  size_t left_;
  bool ok_ = true;
};

bool plain_text(std::string_view text) {
  return !text.empty() && std::none_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f;
  });
}
bool plain_file_name(std::string_view name) {
  return plain_text(name) && name.find('/') == name.npos && name != "." && name != "..";
}

template <class Enum>
bool named(std::string_view text, std::string_view (*name)(Enum), Enum* out) {
  for (int i = 0; i < 32; ++i) {
    if (name(static_cast<Enum>(i)) != text || text == "unknown") continue;
    *out = static_cast<Enum>(i);
    return true;
  }
  return false;
}

void put_entry(std::string& out, const StoreEntry& e) {
  put_text(out, e.name);
  put_text(out, e.role);
  put_text(out, weight_format_name(e.format));
  put_text(out, e.vector ? kVector : weight_layout_name(e.layout));
  put_text(out, dtype_name(e.stored));
  for (const int64_t v : {e.n, e.k, e.block}) put(out, v);
  for (const uint64_t v : {e.offset, e.bytes, e.checksum}) put(out, v);
  for (const double v : {e.error, e.signal}) put(out, v);
}

Status check_shape(const StoreEntry& e) {
  if (e.n < 1 || e.n > kMaxElements || (!e.vector && (e.k < 1 || e.k > kMaxSide || e.n > kMaxSide)))
    return data_loss("expected sizes from 1, got [{}, {}]", e.n, e.k);
  if (e.vector) return ok_status();
  if (e.n > kMaxElements / e.k) return data_loss("[{}, {}] is too large", e.n, e.k);
  const bool row_major = e.layout == WeightLayout::kRowMajor;
  const bool half = e.format == WeightFormat::kF16;
  const bool plain = half || e.format == WeightFormat::kF32 || e.format == WeightFormat::kBF16;
  if (row_major ? !plain : half)
    return data_loss("layout {} has no format {}", weight_layout_name(e.layout),
                     weight_format_name(e.format));
  if (is_int_format(e.format) && e.block != 128 && e.block != 256 && e.block != 512)
    return data_loss("block: expected 128, 256 or 512, got {}", e.block);
  if (e.layout == WeightLayout::kGluPanel16 && e.n % 2 != 0)
    return data_loss("N: expected 2 I, even, got {}", e.n);
  if (e.format == WeightFormat::kMXFP4 && e.k % 32 != 0)
    return data_loss("K: expected a multiple of 32, got {}", e.k);
  return ok_status();
}

Status take_entry(FieldReader& in, StoreEntry* e) {
  e->name = in.text();
  e->role = in.text();
  const std::string format = in.text(), layout = in.text(), stored = in.text();
  for (int64_t* v : {&e->n, &e->k, &e->block}) *v = in.take<int64_t>();
  for (uint64_t* v : {&e->offset, &e->bytes, &e->checksum}) *v = in.take<uint64_t>();
  for (double* v : {&e->error, &e->signal}) *v = in.take<double>();
  if (!in.ok()) return data_loss("the index ends inside an entry");
  if (!plain_text(e->name) || !plain_text(e->role)) return data_loss("a tensor without a name");
  e->vector = layout == kVector;
  const std::optional<DType> dtype = dtype_from_name(stored);
  if (!named(format, weight_format_name, &e->format) || !dtype ||
      (!e->vector && !named(layout, weight_layout_name, &e->layout)) ||
      (e->vector && e->format != WeightFormat::kF32))
    return data_loss("tensor {}: unknown format, layout or dtype", e->name);
  e->stored = *dtype;
  if (Status s = check_shape(*e); !s.ok()) return s.annotate(fmt::format("tensor {}", e->name));
  if (e->bytes != e->expected_bytes())
    return data_loss("tensor {}: expected {} bytes, got {}", e->name, e->expected_bytes(),
                     e->bytes);
  return ok_status();
}

// Payload ranges follow each other within the file.
Status check_places(const StoreHeader& h) {
  uint64_t at = h.payload;
  for (const StoreEntry& e : h.entries) {
    if (e.offset % 64 != 0 || e.offset < at || e.offset > h.file_bytes ||
        e.bytes > h.file_bytes - e.offset)
      return data_loss("tensor {}: its place, {} bytes at {}, is not free or not in the file",
                       e.name, e.bytes, e.offset);
    at = e.offset + e.bytes;
  }
  if (at != h.file_bytes)
    return data_loss("expected {} bytes by the index, got {}", at, h.file_bytes);
  return ok_status();
}

Status take_index(FieldReader in, StoreHeader* h) {
  const auto files = in.take<uint32_t>();
  if (files > kMaxFiles) return data_loss("more than {} files beside", kMaxFiles);
  for (uint32_t i = 0; i < files && in.ok(); ++i) {
    StoreFile f{.name = in.text()};
    f.bytes = in.take<uint64_t>();
    f.checksum = in.take<uint64_t>();
    if (!in.ok() || !plain_file_name(f.name)) return data_loss("a file beside without a name");
    h->files.push_back(std::move(f));
  }
  const auto entries = in.take<uint64_t>();
  // An entry takes 70 bytes at least: no allocation that the index does not justify.
  if (!in.ok() || entries > kMaxStoreEntries || entries > in.left() / 70)
    return data_loss("{} tensors do not fit the index", entries);
  h->entries.resize(entries);
  std::unordered_set<std::string_view> names;
  for (StoreEntry& e : h->entries) {
    SLUICE_RETURN_IF_ERROR(take_entry(in, &e));
    if (!names.insert(e.name).second) return data_loss("tensor {} occurs twice", e.name);
  }
  if (in.left() != 0) return data_loss("{} bytes after the last entry of the index", in.left());
  return check_places(*h);
}

uint64_t header_checksum(const std::byte* page) {
  RunningChecksum sum;
  sum.add(page, kChecksumAt);
  sum.add(page + kTextAt, kStorePage - kTextAt);
  return sum.value();
}

// The fixed page, up to its checksum.
Status check_page(const std::byte* p, uint64_t size) {
  const size_t magic = std::min<size_t>(size, kMagic.size());
  if (magic < kMagic.size() || std::memcmp(p, kMagic.data(), magic) != 0)
    return data_loss("not a packed store");
  if (size < kStorePage)
    return data_loss("expected at least {} bytes, got {}: it was cut", kStorePage, size);
  if (const auto order = get<uint32_t>(p + 12); order != kByteOrder)
    return data_loss("packed with another byte order, or damaged");
  if (const auto version = get<uint32_t>(p + 8); version != kStoreVersion)
    return invalid_argument("packed as version {}, this build reads version {}", version,
                            kStoreVersion);
  if (const auto layout = get<uint32_t>(p + 16); layout != kPanelLayoutId)
    return invalid_argument("packed for panel layout {}, this build has layout {}", layout,
                            kPanelLayoutId);
  if (get<uint64_t>(p + kChecksumAt) != header_checksum(p))
    return data_loss("the header is damaged (checksum)");
  return ok_status();
}

Status take_all(const std::byte* p, uint64_t size, StoreHeader* h) {
  const auto computes = get<uint32_t>(p + 20);
  h->fits_f32 = (computes & 1) != 0;
  h->fits_bf16 = (computes & 2) != 0;
  h->file_bytes = get<uint64_t>(p + 24);
  if (h->file_bytes != size)
    return data_loss("expected {} bytes, got {}: it was cut or changed", h->file_bytes, size);
  const auto index = get<uint64_t>(p + 32);
  if (index > size - kStorePage)
    return data_loss("index: expected at most {} bytes, got {}", size - kStorePage, index);
  if (get<uint64_t>(p + 40) != checksum(p + kStorePage, index))
    return data_loss("the index is damaged (checksum)");
  h->payload = up(kStorePage + index, kStorePage);
  return take_index(FieldReader(p + kStorePage, index), h);
}

// What the page says of its making; nothing when it is damaged.
void take_making(const std::byte* p, uint64_t size, StoreHeader* h) {
  if (size < kStorePage || get<uint64_t>(p + kChecksumAt) != header_checksum(p)) return;
  const uint64_t model = get<uint32_t>(p + 48), options = get<uint32_t>(p + 52);
  if (model + options > kStorePage - kTextAt) return;
  const auto* text = reinterpret_cast<const char*>(p + kTextAt);
  h->model.assign(text, model);
  h->options.assign(text + model, options);
}

// Shown on a terminal: no control bytes.
std::string quoted(std::string_view text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || strchr("_-./=:,+@%", c) != nullptr;
  });
  if (plain) return std::string(text);
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else
      out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out + "'";
}

}  // namespace

std::string pack_command(std::string_view model, std::string_view store, std::string_view options) {
  std::string safe(options);
  for (char& c : safe)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return fmt::format("sluice pack {} -o {}{}{}", model.empty() ? "MODEL" : quoted(model),
                     quoted(store), safe.empty() ? "" : " ", safe);
}

void lay_out_store(StoreHeader& header) {
  for (StoreEntry& e : header.entries) e.bytes = e.expected_bytes();
  const uint64_t front = encode_store(header).size();
  header.payload = front;
  uint64_t at = front;
  for (StoreEntry& e : header.entries) {
    e.offset = up(at, e.bytes >= kPageFrom ? kStorePage : 64);
    at = e.offset + e.bytes;
  }
  header.file_bytes = at;
}

std::string encode_store(const StoreHeader& header) {
  std::string index;
  put(index, static_cast<uint32_t>(header.files.size()));
  for (const StoreFile& f : header.files) {
    put_text(index, f.name);
    put(index, f.bytes);
    put(index, f.checksum);
  }
  put(index, static_cast<uint64_t>(header.entries.size()));
  for (const StoreEntry& e : header.entries) put_entry(index, e);
  std::string page(kMagic);
  put(page, kStoreVersion);
  put(page, kByteOrder);
  put(page, kPanelLayoutId);
  put(page, static_cast<uint32_t>(header.fits_f32 ? 1 : 0) | (header.fits_bf16 ? 2u : 0u));
  put(page, header.file_bytes);
  put(page, static_cast<uint64_t>(index.size()));
  put(page, checksum(index.data(), index.size()));
  // A path too long for the page is left out: the command then says MODEL.
  const bool fit = header.model.size() + header.options.size() <= kStorePage - kTextAt;
  const std::string model = fit ? header.model : "";
  const std::string options = header.options.size() <= kStorePage - kTextAt ? header.options : "";
  put(page, static_cast<uint32_t>(model.size()));
  put(page, static_cast<uint32_t>(options.size()));
  page.resize(kTextAt, '\0');
  page += model + options;
  page.resize(kStorePage, '\0');
  const uint64_t sum = header_checksum(reinterpret_cast<const std::byte*>(page.data()));
  std::memcpy(page.data() + kChecksumAt, &sum, sizeof(sum));
  page += index;
  page.resize(up(page.size(), kStorePage), '\0');
  return page;
}

Result<StoreHeader> parse_store(const std::byte* bytes, uint64_t size, const std::string& where) {
  StoreHeader header;
  take_making(bytes, size, &header);
  Status status = check_page(bytes, size);
  if (status.ok()) status = take_all(bytes, size, &header);
  if (status.ok()) return header;
  const size_t slash = where.rfind('/');
  const std::string directory = slash == where.npos ? "." : where.substr(0, slash);
  return Status(status.code(), fmt::format("{}: {}; make it again: {}", where, status.message(),
                                           pack_command(header.model, directory, header.options)));
}

}  // namespace sluice
