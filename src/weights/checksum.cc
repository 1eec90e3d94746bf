#include "weights/checksum.h"

#define XXH_STATIC_LINKING_ONLY  // for the state's size
#include <xxhash.h>

namespace sluice {

struct RunningChecksum::State {
  XXH3_state_t hash;
};

uint64_t checksum(const void* data, size_t bytes) {
  return XXH3_64bits(data, bytes);
}

RunningChecksum::RunningChecksum() : state_(std::make_unique<State>()) {
  XXH3_64bits_reset(&state_->hash);
}
RunningChecksum::~RunningChecksum() = default;

void RunningChecksum::add(const void* data, size_t bytes) {
  XXH3_64bits_update(&state_->hash, data, bytes);
}
uint64_t RunningChecksum::value() const {
  return XXH3_64bits_digest(&state_->hash);
}

}  // namespace sluice
