// embed: rows of the embedding table, widened and scaled.
//
//   out[t, :] = f32(table[ids[t], :]) * scale                     (one multiplication, f32)
//
// tensor | shape  | dtype            | layout
// ids    | [T]    | i32              |
// table  | [V, D] | f32, f16, bf16   | kRowMajor, or kPanel16 (a tied head's panels as they are)
// out    | [T, D] | f32              | row stride
// Deterministic, batch- and thread-invariant; exact but for the one product.
// Errors: an id outside [0, V), where the host can read them (on a device the caller vouches for
// them); shapes that disagree.
#pragma once

#include <span>

#include "device/device.h"
#include "weights/packed.h"

namespace sluice {

struct EmbedArgs {
  std::span<const int32_t> ids;
  const PackedMatrix* table = nullptr;
  float scale = 1.0f;
  MatrixF32 out;
};
Status embed(const ExecContext& context, const EmbedArgs& args);

}  // namespace sluice
