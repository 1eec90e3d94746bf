// A batch of draws as a CUDA row takes it: arrays on the device, one entry per row of logits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/sample/kernels.h"

namespace sluice {

class Stream;  // device/device.h

// Ids or biases [begin, end) of the batch's list.
struct SampleList {
  int32_t begin = 0, end = 0;
};

// One row's rules, as uploaded.
struct SampleRule {
  float inverse_temperature = 1.0f;
  float top_p = 1.0f;
  float farthest = 0.0f;          // min-p as a distance
  uint32_t random24 = 0;          // the uniform number, times 2^24
  uint64_t top_k = ~uint64_t{0};  // tokens that may be kept
  bool greedy = false;            // arg-max whatever else is asked
  bool bounded = false;           // by top-k or top-p
  bool logprobs = false;          // wants max and exp_sum
  int32_t adjusted = -1;          // which of the adjusted rows; negative: none
  float repetition = 1.0f, frequency = 0.0f, presence = 0.0f;
  SampleList bias, prompt, output;  // biases sorted by id, those of one id in their own order
};

// What a row's search knows between launches.
struct SampleState {
  float max = 0.0f;
  bool done = false;       // arg-max: token is the result
  bool searching = false;  // for the last kept token, or for the one drawn
  int32_t token = 0;
  uint64_t total = 0;                          // Z
  uint64_t kept_mass = 0, kept_count = 0;      // what the draw is among
  uint64_t mass_before = 0, count_before = 0;  // of the range of distances searched
  uint32_t low = 0;                            // its first
  float distance = 0.0f;                       // the draw is the index-th token there
  uint64_t index = 0;
};

struct SampleResult {
  int32_t token = 0;
  float logit = 0.0f;                      // of the token, as the model gave it
  float max = 0.0f, exp_sum = 0.0f;        // of the model's logits, where logprobs are wanted
  uint64_t kept_count = 0, kept_mass = 0;  // tokens of no mass are not kept
};

// Logits that one block of a pass takes, and levels of the search: 31 bits of a distance, coarse to
// fine; the coarse bins reach to the last distance that has a mass, ln(2^30).
inline constexpr int64_t kSampleChunk = 4096;
inline constexpr int kSampleCoarse = 2112, kSampleFine = 1024;

struct SampleDraws {
  const float* logits = nullptr;
  int64_t stride = 0, rows = 0, n = 0;
  // What the launches need to know of the batch.
  bool adjusts = false, draws = false, bounded = false, logprobs = false;
  // Uploaded.
  const SampleRule* rules = nullptr;
  const int32_t* ids = nullptr;  // prompts and outputs
  const int32_t* bias_ids = nullptr;
  const float* biases = nullptr;
  // Scratch.
  SampleState* states = nullptr;
  uint64_t* best = nullptr;     // [rows, chunks]: topk_key of each chunk's arg-max
  SampleBin* coarse = nullptr;  // [rows, kSampleCoarse]
  SampleBin* fine = nullptr;    // [rows, kSampleFine]
  uint32_t* equal = nullptr;    // [rows, chunks]: tokens at the drawn distance
  float* adjusted = nullptr;    // [adjusted rows, n]
  int32_t* marks = nullptr;     // [adjusted rows, n]
  // Downloaded.
  SampleResult* results = nullptr;
  Stream* stream = nullptr;
};

}  // namespace sluice
