// From a resolved rule to the numbers behind it: strides, halves, scales, whichever way they are
// stored. Reads mapped files: call inside guard_mapped_reads.
#pragma once

#include <utility>
#include <vector>

#include "device/device.h"
#include "model/tensor_table.h"
#include "ops/matmul/pack.h"
#include "weights/packed.h"

namespace sluice {

// `count` elements of a f32, f16 or bf16 tensor from element `first` on.
std::vector<float> read_vector(const TensorView& view, int64_t first, int64_t count);
// sqrt(D) as the embedding's own dtype has it: what the model was trained with.
float round_to_stored(float scale, DType dtype);
// One expert's row of a bias [E, N]; of gate_up, gate first and then up.
std::vector<float> read_expert_row(const ResolvedRule& resolved, int64_t expert);
// The matrix of a rule (of one expert), packed. MXFP4 as stored may become another
// format.
Result<PackedMatrix> pack_resolved(Device& device, const ResolvedRule& resolved, int64_t expert,
                                   WeightFormat format, const IntPacking& how = {});
// Rows [first, first + count) of a rule that one [N, K] tensor stores; `first` is a multiple of 16.
// `out` is where their panels belong.
struct RowSlice {
  int64_t first = 0, count = 0;
};
Status pack_rows(const ResolvedRule& resolved, const RowSlice& rows, WeightFormat format,
                 std::byte* out, const IntPacking& how = {});
std::pair<const std::byte*, size_t> stored_range(const ResolvedRule& resolved,
                                                 const RowSlice& rows);
// The bytes that pack_resolved reads.
std::vector<std::pair<const std::byte*, size_t>> stored_ranges(const ResolvedRule& resolved,
                                                               int64_t expert);

}  // namespace sluice
