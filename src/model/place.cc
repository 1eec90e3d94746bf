#include "model/place.h"

namespace sluice {
namespace {

template <class T>
Result<Buffer> copy_of(Device& device, const std::vector<T>& values, std::string_view what) {
  const size_t bytes = values.size() * sizeof(T);
  SLUICE_ASSIGN_OR_RETURN(Buffer buffer, device.allocate(bytes, what));
  SLUICE_RETURN_IF_ERROR(device.upload(buffer.data(), values.data(), bytes, nullptr));
  return buffer;
}

template <class T>
std::span<const T> in_use(const std::vector<T>& host, const Buffer& device) {
  if (device.bytes() == 0) return host;
  return {device.as<const T>(), device.bytes() / sizeof(T)};
}

}  // namespace

Result<PackedMatrix> place(Device& device, PackedMatrix packed, std::string_view what) {
  if (device.kind() == DeviceKind::kCpu || packed.empty()) return packed;
  SLUICE_ASSIGN_OR_RETURN(Buffer buffer, device.allocate(packed.bytes, what));
  SLUICE_RETURN_IF_ERROR(device.upload(buffer.data(), packed.data, packed.bytes, nullptr));
  packed.data = buffer.data();
  packed.storage = StorageKind::kDevice;
  packed.owner = std::make_shared<const Buffer>(std::move(buffer));
  return packed;
}

Status F32Vector::move_to(Device& device) {
  if (device.kind() == DeviceKind::kCpu || host_.empty()) return ok_status();
  SLUICE_ASSIGN_OR_RETURN(device_, copy_of(device, host_, "norms and biases"));
  host_ = {};
  return ok_status();
}

Status ExpertPointers::bind(Device& device, const std::vector<PackedMatrix>& matrices,
                            const std::vector<F32Vector>& biases) {
  matrices_.clear();
  biases_.clear();
  for (const PackedMatrix& m : matrices) matrices_.push_back(&m);
  for (const F32Vector& b : biases) biases_.push_back(b.data());
  if (device.kind() == DeviceKind::kCpu || matrices.empty()) return ok_status();
  std::vector<const std::byte*> panels;
  for (const PackedMatrix& m : matrices) panels.push_back(m.data);
  SLUICE_ASSIGN_OR_RETURN(device_panels_, copy_of(device, panels, "expert pointers"));
  if (biases_.empty()) return ok_status();
  SLUICE_ASSIGN_OR_RETURN(device_biases_, copy_of(device, biases_, "expert pointers"));
  return ok_status();
}

std::span<const float* const> ExpertPointers::biases() const {
  return in_use(biases_, device_biases_);
}

std::span<const std::byte* const> ExpertPointers::panels() const {
  return {device_panels_.as<const std::byte* const>(),
          device_panels_.bytes() / sizeof(const std::byte*)};
}

}  // namespace sluice
