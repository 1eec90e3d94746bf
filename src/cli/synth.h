// The body of `sluice synth`: a checkpoint of a published model's shape with seeded random weights.
//
// It has the published names, shapes and dtypes, at full width and with as many layers as asked
// for, so that loading, memory and speed can be tried without the real weights. The same seed gives
// the same bytes on every machine.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "cli/console.h"

namespace sluice {

struct SynthOptions {
  std::string family;  // a name of synth_families()
  int64_t layers = 4;
  std::string out;  // a directory; made if absent
  uint64_t seed = 1;
  int threads = 0;
  bool tiny = false;  // small widths and vocabulary: for tests
  bool json = false;
};

// "gemma4-26b-a4b, gpt-oss-20b, qwen3-30b-a3b"
std::string synth_families();
Status run_synth(const SynthOptions& options, Console& console);

}  // namespace sluice
