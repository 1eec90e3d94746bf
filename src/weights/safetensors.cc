#include "weights/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/json.h"
#include "weights/mapped_file.h"

namespace sluice {
namespace {

using nlohmann::json;

// A non-negative integer below 2^63, or nothing.
bool read_unsigned(const json& v, uint64_t* out) {
  if (!v.is_number_integer()) return false;
  if (v.is_number_unsigned()) {
    *out = v.get<uint64_t>();
    return *out <= uint64_t{INT64_MAX};
  }
  return false;  // nlohmann keeps only negative numbers as signed
}

std::string brief(const json& v) {
  std::string text = v.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

struct Range {
  uint64_t begin = 0, end = 0;
};

Status parse_shape(const json& shape, TensorView* view) {
  if (!shape.is_array()) return data_loss("shape: expected a list, got {}", brief(shape));
  if (shape.size() > kMaxTensorRank)
    return data_loss("shape: expected at most {} dimensions, got {}", kMaxTensorRank, shape.size());
  for (const json& d : shape) {
    uint64_t v = 0;
    if (!read_unsigned(d, &v))
      return data_loss("shape: expected non-negative integers below 2^63, got {}", brief(d));
    view->shape.push_back(static_cast<int64_t>(v));
  }
  return ok_status();
}

// The bytes that shape and dtype ask for.
Status expected_bytes(const TensorView& view, uint64_t* bytes) {
  uint64_t bits = static_cast<uint64_t>(dtype_bits(view.dtype));
  // A zero makes the product zero, but must not hide an overflow of the others.
  bool zero = false;
  for (int64_t d : view.shape) {
    if (d == 0) {
      zero = true;
      continue;
    }
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(d), &bits))
      return data_loss("shape [{}]: the number of bits overflows 2^64",
                       fmt::join(view.shape, ", "));
  }
  if (zero) bits = 0;
  if (bits % 8 != 0)
    return data_loss("shape [{}] of {}: expected a whole number of bytes, got {} bits",
                     fmt::join(view.shape, ", "), dtype_name(view.dtype), bits);
  *bytes = bits / 8;
  return ok_status();
}

Status parse_entry(const json& entry, uint64_t payload_bytes, TensorView* view, Range* range) {
  if (!entry.is_object()) return data_loss("expected an object, got {}", brief(entry));
  for (const auto& item : entry.items())
    if (item.key() != "dtype" && item.key() != "shape" && item.key() != "data_offsets")
      return data_loss("unknown key {}; expected dtype, shape, data_offsets",
                       json(item.key()).dump());
  if (entry.size() != 3)
    return data_loss("expected dtype, shape and data_offsets, got {}", brief(entry));
  const json& dtype = entry["dtype"];
  if (!dtype.is_string()) return data_loss("dtype: expected a string, got {}", brief(dtype));
  const std::optional<DType> known = dtype_from_name(dtype.get_ref<const std::string&>());
  if (!known) return data_loss("dtype: expected a safetensors type, got {}", brief(dtype));
  view->dtype = *known;
  SLUICE_RETURN_IF_ERROR(parse_shape(entry["shape"], view));
  const json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !read_unsigned(offsets[0], &range->begin) ||
      !read_unsigned(offsets[1], &range->end))
    return data_loss("data_offsets: expected two non-negative integers, got {}", brief(offsets));
  if (range->begin > range->end || range->end > payload_bytes)
    return data_loss("data_offsets: expected begin <= end <= {} (the payload's bytes), got {}",
                     payload_bytes, brief(offsets));
  uint64_t want = 0;
  SLUICE_RETURN_IF_ERROR(expected_bytes(*view, &want));
  if (range->end - range->begin != want)
    return data_loss("expected {} bytes for {} [{}], got {} (data_offsets {})", want,
                     dtype_name(view->dtype), fmt::join(view->shape, ", "),
                     range->end - range->begin, brief(offsets));
  view->bytes = want;
  return ok_status();
}

Status parse_metadata(const json& value, std::map<std::string, std::string>* metadata) {
  if (!value.is_object())
    return data_loss("__metadata__: expected an object, got {}", brief(value));
  for (const auto& item : value.items()) {
    if (!item.value().is_string())
      return data_loss("__metadata__: {}: expected a string, got {}", json(item.key()).dump(),
                       brief(item.value()));
    (*metadata)[item.key()] = item.value().get<std::string>();
  }
  return ok_status();
}

// Sorted by begin, the ranges must follow each other from 0 to the payload's end.
Status check_tiling(std::vector<std::pair<Range, const TensorView*>> ranges,
                    uint64_t payload_bytes) {
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  uint64_t at = 0;
  for (const auto& [range, view] : ranges) {
    if (range.begin < at)
      return data_loss(
          "tensor {}: overlaps another tensor: expected to start at {} or later, got {}",
          view->name, at, range.begin);
    if (range.begin > at)
      return data_loss("tensor {}: a hole before it: expected to start at {}, got {}", view->name,
                       at, range.begin);
    at = range.end;
  }
  if (at != payload_bytes)
    return data_loss("expected {} payload bytes by the header, got {}", at, payload_bytes);
  return ok_status();
}

class SafetensorsFile : public TensorSource {
 public:
  static Result<std::unique_ptr<TensorSource>> open(const std::string& path) {
    auto source = std::make_unique<SafetensorsFile>();
    SLUICE_ASSIGN_OR_RETURN(source->file_, MappedFile::open(path));
    Result<SafetensorsHeader> header = internal_error("not parsed");
    const Status read = guard_mapped_reads([&] {
      header = parse_safetensors(source->file_->data(), source->file_->bytes(), path);
      return header.status();
    });
    SLUICE_RETURN_IF_ERROR(read);
    source->tensors_ = std::move(header->tensors);
    for (const TensorView& t : source->tensors_) source->by_name_.emplace(t.name, &t);
    return std::unique_ptr<TensorSource>(std::move(source));
  }

  const TensorView* find(std::string_view name) const override {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : it->second;
  }
  const std::vector<TensorView>& tensors() const override { return tensors_; }
  const std::string& where() const override { return file_->path(); }
  const std::vector<std::string>& warnings() const override { return warnings_; }
  void release_pages(const std::byte* data, size_t bytes) const override {
    file_->release_pages(data, bytes);
  }
  Status health() const override { return file_->health(); }

 private:
  std::shared_ptr<MappedFile> file_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string_view, const TensorView*> by_name_;
  std::vector<std::string> warnings_;
};

}  // namespace

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, const std::byte* payload,
                                                   uint64_t payload_bytes,
                                                   const std::string& file) {
  if (text.empty() || text.front() != '{')
    return data_loss("{}: header: expected it to start with '{{', got {}", file,
                     text.empty() ? "nothing" : "another byte");
  JsonLimits limits;
  limits.max_depth = 8;
  limits.max_values = std::min<size_t>(text.size() / 2 + 64, 8 * kMaxSafetensorsTensors);
  SLUICE_ASSIGN_OR_RETURN(const json root,
                          parse_json(text, fmt::format("{}: header", file), limits));
  if (root.size() > kMaxSafetensorsTensors)
    return data_loss("{}: expected at most {} tensors, got {}", file, kMaxSafetensorsTensors,
                     root.size());
  SafetensorsHeader header;
  header.tensors.reserve(root.size());
  std::vector<std::pair<Range, const TensorView*>> ranges;
  ranges.reserve(root.size());
  for (const auto& item : root.items()) {
    if (item.key() == "__metadata__") {
      if (Status s = parse_metadata(item.value(), &header.metadata); !s.ok())
        return s.annotate(file);
      continue;
    }
    TensorView view;
    Range range;
    if (Status s = parse_entry(item.value(), payload_bytes, &view, &range); !s.ok())
      return s.annotate(fmt::format("{}: tensor {}", file, item.key()));
    view.name = item.key();
    view.file = file;
    view.data = payload + range.begin;
    header.tensors.push_back(std::move(view));
    ranges.emplace_back(range, &header.tensors.back());
  }
  if (Status s = check_tiling(std::move(ranges), payload_bytes); !s.ok()) return s.annotate(file);
  return header;
}

Result<SafetensorsHeader> parse_safetensors(const std::byte* bytes, uint64_t size,
                                            const std::string& file) {
  if (size < 8)
    return data_loss("{}: expected at least 8 bytes (the header's length), got {}", file, size);
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<uint64_t>(bytes[i]);
  if (length > kMaxSafetensorsHeader)
    return data_loss("{}: header length: expected at most {} bytes, got {}", file,
                     kMaxSafetensorsHeader, length);
  if (length > size - 8)
    return data_loss("{}: header length: expected at most {} bytes (the rest of the file), got {}",
                     file, size - 8, length);
  // A private copy: a file that changes under us must not change between two checks.
  const std::string text(reinterpret_cast<const char*>(bytes) + 8, length);
  return parse_safetensors_header(text, bytes + 8 + length, size - 8 - length, file);
}

Result<std::unique_ptr<TensorSource>> open_safetensors_file(const std::string& path) {
  return SafetensorsFile::open(path);
}

}  // namespace sluice
