// Checksums of stored bytes: XXH3, 64 bits. They find damage, not malice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace sluice {

uint64_t checksum(const void* data, size_t bytes);

// The same over pieces that follow each other.
class RunningChecksum {
 public:
  RunningChecksum();
  ~RunningChecksum();
  void add(const void* data, size_t bytes);
  uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
