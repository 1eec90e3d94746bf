#include "tokenizer/vocabulary.h"

#include <bit>
#include <functional>

namespace sluice {
namespace {

uint32_t hash_of(std::string_view text) {
  return static_cast<uint32_t>(std::hash<std::string_view>{}(text));
}

}  // namespace

TokenTable::TokenTable(size_t id_limit, size_t text_bytes) : spans_(id_limit) {
  arena_.reserve(text_bytes);
  slots_.resize(std::bit_ceil(2 * id_limit + 8));
}

bool TokenTable::add(int32_t id, std::string_view text) {
  if (id < 0 || static_cast<size_t>(id) >= spans_.size() || has(id)) return false;
  if (arena_.size() + text.size() >= kHole) return false;
  const uint32_t hash = hash_of(text);
  const size_t mask = slots_.size() - 1;
  size_t i = hash & mask;
  for (; slots_[i].id != kNoToken; i = (i + 1) & mask)
    if (slots_[i].hash == hash && this->text(slots_[i].id) == text) return false;
  slots_[i] = {hash, id};
  spans_[id] = {static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(text.size())};
  arena_.append(text);
  ++count_;
  return true;
}

int32_t TokenTable::find(std::string_view text) const {
  const uint32_t hash = hash_of(text);
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask; slots_[i].id != kNoToken; i = (i + 1) & mask)
    if (slots_[i].hash == hash && this->text(slots_[i].id) == text) return slots_[i].id;
  return kNoToken;
}

MergeTable::MergeTable(size_t expected)
    : slots_(std::bit_ceil(2 * expected + 8)), mask_(slots_.size() - 1) {}

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  if (2 * (count_ + 1) > slots_.size()) {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    for (const Slot& slot : old)
      if (slot.key != kEmpty) slots_[place_of(slot.key)] = slot;
  }
  Slot& slot = slots_[place_of(key(left, right))];
  if (slot.key == kEmpty) ++count_;
  slot = {key(left, right), merge};
}

size_t MergeTable::place_of(uint64_t k) const {
  size_t i = mix(k) & mask_;
  while (slots_[i].key != kEmpty && slots_[i].key != k) i = (i + 1) & mask_;
  return i;
}

}  // namespace sluice
