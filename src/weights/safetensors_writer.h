// Writing safetensors files: declared first, then streamed in order, whole or not at all.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/output_file.h"
#include "base/status.h"
#include "tensor/dtype.h"

namespace sluice {

// A tensor to be written; `data` may be null when the bytes are streamed.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
};
using SafetensorsMetadata = std::map<std::string, std::string>;

// Streams the payload: the tensors' bytes one after the other, in the order in which they were
// declared, cut as the caller likes. Memory use does not depend on their size.
class SafetensorsWriter {
 public:
  static Result<std::unique_ptr<SafetensorsWriter>> create(
      const std::string& path, const std::vector<TensorToWrite>& tensors,
      const SafetensorsMetadata& metadata = {});
  Status write(const void* data, size_t bytes);
  // Fails unless exactly the declared bytes were written.
  Status finish();
  uint64_t payload_bytes() const { return payload_bytes_; }

 private:
  SafetensorsWriter() = default;

  std::unique_ptr<OutputFile> file_;
  std::string path_;
  uint64_t payload_bytes_ = 0, written_ = 0;
};

// All at once: every tensor has its data.
Status write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                         const SafetensorsMetadata& metadata = {});

}  // namespace sluice
