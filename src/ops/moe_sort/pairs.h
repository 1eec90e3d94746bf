// The index rules of moe_sort over plain integers and pointers: what every kernel of the op, on any
// device, must agree on.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace sluice {

enum class PairForm { kFlat, kPacked };
struct SortStats {
  int64_t dropped = 0;        // ids outside [0, global E)
  int64_t live_pairs = 0;     // starts[E]
  int64_t largest_group = 0;  // most pairs of one expert
  int64_t used_experts = 0;   // experts with a pair
};

inline constexpr int64_t kSortMostExperts = 4096;
// The packed form holds the token in 24 bits and the slot above it; 127 keeps the padding positive.
inline constexpr int64_t kPackedMostTokens = (int64_t{1} << 24) - 1;
inline constexpr int64_t kSortMostSlots = 127;
// What a debug build leaves behind the entries in use: no index of any buffer.
inline constexpr int32_t kSortPoison = 0x7badf00d;

inline constexpr int32_t kNotHere = -1;   // an expert that another rank has
inline constexpr int32_t kNoExpert = -2;  // an id outside [0, E): dropped and counted

// Local expert of a global id among `global` of them; map null: the identity.
SLUICE_HD inline int32_t local_expert(const int32_t* map, int64_t global, int32_t id) {
  if (id < 0 || id >= global) return kNoExpert;
  if (map == nullptr) return id;
  return map[id] < 0 ? kNotHere : map[id];
}

// A 0/1 mask as a map: the local id is the number of ones before; returns how many there are.
SLUICE_HD inline int64_t map_of_mask(const int32_t* mask, int64_t global, int32_t* map) {
  int32_t next = 0;
  for (int64_t e = 0; e < global; ++e) map[e] = mask[e] != 0 ? next++ : kNotHere;
  return next;
}

// Rows t of [0, T) that count: a live count read from the device may be stale, never out of range.
SLUICE_HD inline int64_t live_rows(const int32_t* live_tokens, int64_t tokens) {
  if (live_tokens == nullptr) return tokens;
  const int64_t live = *live_tokens;
  return live < 0 ? 0 : live < tokens ? live : tokens;
}

SLUICE_HD inline int32_t packed_pair(int64_t token, int64_t slot) {
  return static_cast<int32_t>(token | (slot << 24));
}
SLUICE_HD inline int64_t padded_to(int64_t count, int64_t block) {
  // Both are below 2^31: a GPU divides 32 bits several times faster.
  return static_cast<int64_t>(static_cast<uint32_t>(count + block - 1) /
                              static_cast<uint32_t>(block)) *
         block;
}

}  // namespace sluice
