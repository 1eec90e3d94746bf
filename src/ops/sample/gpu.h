// A batch of draws through a CUDA row: one upload of its rules, launches, one download of results.
#pragma once

#include "ops/sample/draws.h"
#include "ops/sample/sample.h"
#include "ops/topk/kernels.h"

namespace sluice {

struct ChoiceRule;  // choose.h

// How large a batch is.
struct SampleSizes {
  int64_t rows = 0, n = 0;
  int64_t adjusted = 0;         // rows with bias or penalties
  int64_t ids = 0, biases = 0;  // listed by all rows together
  int64_t top = 0;              // alternatives of each row
};

// A batch's arrays, one after the other from `base`: what is uploaded, scratch, what is downloaded.
struct SampleBatch {
  SampleDraws draws;
  SampleRule* rules = nullptr;
  int32_t *ids = nullptr, *bias_ids = nullptr;
  float* biases = nullptr;
  int32_t* top_ids = nullptr;   // [rows, top]
  float* top_values = nullptr;  // [rows, top]
  size_t uploaded = 0;          // bytes, from the start
  size_t results = 0;           // offset of what is downloaded, to the end
  size_t bytes = 0;
};
// base == nullptr: sizes and offsets only.
SampleBatch lay_out(const SampleSizes& sizes, std::byte* base);

// A row's rule; `n` is the vocabulary. Call it in the kernels' floating-point environment.
SampleRule device_rule(const ChoiceRule& rule, int64_t n);

Status sample_on_gpu(const ExecContext& context, const SampleKernel& kernel, TopkKernel* topk,
                     const SampleArgs& args, Workspace workspace);

}  // namespace sluice
