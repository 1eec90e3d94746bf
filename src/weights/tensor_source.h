// TensorSource: where a model's tensors come from, as named, typed, shaped, read-only views.
//
// Sources: a Hugging Face directory or safetensors file (safetensors.h). A source validates every
// header byte that it trusts before a view is handed out; a view never reaches outside its file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"

namespace sluice {

// Bytes of one stored tensor. `data` may have ANY alignment: read it with memcpy, never by casting.
// A mapped file that somebody truncates meanwhile reads as zeros and makes health() fail.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  std::string file;  // for messages

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // nullptr when there is no such tensor. Pointers live as long as the source.
  virtual const TensorView* find(std::string_view name) const = 0;
  virtual const std::vector<TensorView>& tensors() const = 0;
  // What the source is, for messages: a path.
  virtual const std::string& where() const = 0;
  // Things a person should know that are no errors, one sentence each.
  virtual const std::vector<std::string>& warnings() const = 0;
  // Lets the system take back the memory in which these bytes are cached. They stay readable.
  virtual void release_pages(const std::byte* data, size_t bytes) const = 0;
  // An error once a mapped file turned out to be shorter than it was: what was read is not to be
  // trusted. Cheap; ask after every step that reads mapped tensors.
  virtual Status health() const = 0;
};

// Opens a directory (model.safetensors.index.json, else model.safetensors) or one .safetensors
// file.
Result<std::unique_ptr<TensorSource>> open_tensor_source(const std::string& path);

// Runs `body`, which reads mapped files, and fails if it met a page that was lost: the file was
// truncated or could not be read. The bus error is taken by a handler that puts zeros in place of
// the lost pages, so `body` runs to its end and owns what it likes. Nests and is thread-safe; pages
// that another thread lost are told by health() alone.
Status guard_mapped_reads(const std::function<Status()>& body);

}  // namespace sluice
