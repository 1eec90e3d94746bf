#include "device/device.h"

namespace sluice {

Buffer& Buffer::operator=(Buffer&& o) noexcept {
  if (this != &o) {
    if (device_ != nullptr) device_->release(data_, bytes_);
    device_ = o.device_;
    data_ = o.data_;
    bytes_ = o.bytes_;
    o.device_ = nullptr;
    o.data_ = nullptr;
    o.bytes_ = 0;
  }
  return *this;
}

Buffer::~Buffer() {
  if (device_ != nullptr) device_->release(data_, bytes_);
}

}  // namespace sluice
