// The one runtime behind the module, and the lock that lets Python threads take turns on its pool.
// Packed weights outlive a change of its threads: their memory is another runtime's, which stays.
#pragma once

#include <mutex>
#include <vector>

#include "arrays.h"
#include "device/device.h"

namespace sluice::python {

class Machine {
 public:
  void set_threads(int threads) {
    const std::lock_guard lock(mutex_);
    runtime_ = require(Runtime::create({.threads = threads}));
  }
  // Where packed weights lie; for a body that run() calls.
  Device& storage() { return storage_->device(); }
  // Calls body(runtime, workspace of `bytes`) without the interpreter's lock.
  template <class Body>
  void run(size_t bytes, const Body& body) {
    Status status;
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      status = locked(bytes, body);
    }
    require(status);
  }
  Runtime& runtime() {
    const std::lock_guard lock(mutex_);
    if (runtime_ == nullptr) runtime_ = require(Runtime::create({}));
    return *runtime_;
  }

 private:
  template <class Body>
  Status locked(size_t bytes, const Body& body) {
    if (runtime_ == nullptr) {
      SLUICE_ASSIGN_OR_RETURN(runtime_, Runtime::create({}));
    }
    if (storage_ == nullptr) {
      SLUICE_ASSIGN_OR_RETURN(storage_, Runtime::create({.threads = 1}));
    }
    SLUICE_ASSIGN_OR_RETURN(Buffer scratch, runtime_->device().allocate(bytes, "workspace"));
    return body(*runtime_, Workspace{scratch.data(), scratch.bytes()});
  }

  std::mutex mutex_;
  std::unique_ptr<Runtime> storage_, runtime_;
};

}  // namespace sluice::python
