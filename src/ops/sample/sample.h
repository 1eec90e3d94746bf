// sample: one token per row of logits.
//
// Order: logit bias, penalties (repetition, frequency, presence), temperature, top-k / top-p,
// min-p, draw.
//   distance  d_j = (max - l_j) * (1 / temperature), f32; tokens stand by (d, id) ascending, which
//             is by probability descending with ties by lowest id
//   mass      q_j = floor(exp(-d_j) * 2^30), an integer; Z = the sum of all
//   keep      while count(before) < k and mass(before) <= p * Z, then d <= -log(min_p)
//   draw      the first token at which the masses so far exceed floor(u * mass(kept)), u one number
//             of 24 bits from Philox4x32-10 keyed by (seed, position)
// Masses are integers so that their sums are exact and do not depend on any order: not on the
// batch, threads, ISA or backend, and none of the rules needs a sort. (A token less likely than
// 2^-30 of the likeliest has mass 0 and is never drawn.)
//   temperature 0, top_p 0 or top_k 1: arg-max with the lowest id; NaN never wins. So is a row
//   whose largest value is infinite; a row of NaN gives id 0.
// Logprobs are of the model's own distribution (raw logits, before bias, penalties and
// temperature), floored at -9999; top alternatives by (value descending, id ascending).
//
// tensor | shape  | dtype | layout
// logits | [T, V] | f32   | row stride; not changed; V <= 2^20
// Errors: SamplingParams out of range (validate_sampling says which); a bias id, or an id of prompt
// or output where penalties read them, outside [0, V).
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "device/device.h"
#include "tensor/view.h"

namespace sluice {

struct SamplingParams {
  float temperature = 1.0f;         // [0, 100]
  int32_t top_k = 0;                // 0 or -1: off
  float top_p = 1.0f;               // [0, 1]
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // (0, 10]; over prompt and output, as transformers
  float presence_penalty = 0.0f;    // [-2, 2]; over output
  float frequency_penalty = 0.0f;   // [-2, 2]; over output
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // [-100, 100]
  int32_t logprobs = -1;  // -1: none; n >= 0: the chosen token's and n <= 20 alternatives
};
Status validate_sampling(const SamplingParams& params, int64_t vocabulary);

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0f;
};
struct SampleRow {
  const SamplingParams* params = nullptr;
  int64_t position = 0;             // of the token to be drawn: keys the random number
  std::span<const int32_t> prompt;  // for penalties
  std::span<const int32_t> output;  // for penalties
  // Results.
  int32_t token = 0;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;
};
struct SampleArgs {
  ConstMatrixF32 logits;
  std::span<SampleRow> rows;
  Workspace staging = {};  // CUDA: host memory, best of Device::allocate_staging
};
// Rows with bias or penalties need the workspace; without one they allocate for the call.
size_t sample_workspace_bytes(int threads, int64_t max_vocabulary);
// On a GPU every row does: rules and lists of ids go up once, results come down once, and the call
// waits for them (so it is never part of a graph). `adjusted` rows have bias or penalties; `listed`
// counts their biases and the ids of prompts and outputs. Too small a workspace or staging is
// replaced for the call.
struct SampleMemory {
  size_t workspace = 0, staging = 0;
};
SampleMemory sample_gpu_bytes(int64_t rows, int64_t max_vocabulary, int64_t adjusted,
                              int64_t listed);
Status sample(const ExecContext& context, const SampleArgs& args, Workspace workspace = {});

// One uniform f32 in [0, 1): 24 bits of Philox4x32-10(counter = position, key = seed).
float philox_uniform(uint64_t seed, uint64_t position);

}  // namespace sluice
