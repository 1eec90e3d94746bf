#include "weights/safetensors_writer.h"

#include <nlohmann/json.hpp>
#include <set>

namespace sluice {
namespace {

Result<uint64_t> tensor_bytes(const TensorToWrite& t) {
  uint64_t bits = static_cast<uint64_t>(dtype_bits(t.dtype));
  for (int64_t d : t.shape)
    if (d < 0 || __builtin_mul_overflow(bits, static_cast<uint64_t>(d), &bits))
      return invalid_argument("tensor {}: expected a shape of sizes >= 0 that fits, got [{}]",
                              t.name, fmt::join(t.shape, ", "));
  if (bits % 8 != 0)
    return invalid_argument("tensor {}: expected whole bytes, got {} bits", t.name, bits);
  return bits / 8;
}

}  // namespace

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(
    const std::string& path, const std::vector<TensorToWrite>& tensors,
    const SafetensorsMetadata& metadata) {
  // Written by hand, so that the header lists the tensors as they follow each other.
  const auto quoted = [](const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  };
  std::string text = "{";
  if (!metadata.empty())
    text += fmt::format(
        "\"__metadata__\":{},",
        nlohmann::json(metadata).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter);
  writer->path_ = path;
  std::set<std::string> names;
  for (const TensorToWrite& t : tensors) {
    if (t.name == "__metadata__" || !names.insert(t.name).second)
      return invalid_argument("{}: tensor {} occurs twice or has a reserved name", path, t.name);
    SLUICE_ASSIGN_OR_RETURN(const uint64_t bytes, tensor_bytes(t));
    const uint64_t begin = writer->payload_bytes_;
    writer->payload_bytes_ += bytes;
    text += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}},",
                        quoted(t.name), dtype_name(t.dtype), fmt::join(t.shape, ","), begin,
                        writer->payload_bytes_);
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the payload starts aligned
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i) & 255);
  SLUICE_ASSIGN_OR_RETURN(writer->file_, OutputFile::create(path));
  SLUICE_RETURN_IF_ERROR(writer->file_->write(length.data(), length.size()));
  SLUICE_RETURN_IF_ERROR(writer->file_->write(text.data(), text.size()));
  return writer;
}

Status SafetensorsWriter::write(const void* data, size_t bytes) {
  if (bytes > payload_bytes_ - written_)
    return invalid_argument("{}: expected {} payload bytes, got more", path_, payload_bytes_);
  written_ += bytes;
  return file_->write(data, bytes);
}

Status SafetensorsWriter::finish() {
  if (written_ != payload_bytes_)
    return invalid_argument("{}: expected {} payload bytes, got {}", path_, payload_bytes_,
                            written_);
  return file_->commit();
}

Status write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                         const SafetensorsMetadata& metadata) {
  SLUICE_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::create(path, tensors, metadata));
  for (const TensorToWrite& t : tensors) {
    SLUICE_ASSIGN_OR_RETURN(const uint64_t bytes, tensor_bytes(t));
    if (bytes > 0) SLUICE_RETURN_IF_ERROR(writer->write(t.data, bytes));
  }
  return writer->finish();
}

}  // namespace sluice
