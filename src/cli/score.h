// The body of `sluice score`: logits of given tokens, or bits per byte of a text.
#pragma once

#include <string>

#include "base/status.h"
#include "cli/load.h"

namespace sluice {

struct ScoreOptions {
  LoadRequest load;
  std::string ids;    // a JSON list of token ids, or a list of lists: one ragged batch
  std::string text;   // a text file
  std::string out;    // .safetensors
  int64_t chunk = 0;  // tokens of a sequence in one step; 0: as many as fit
  bool trace = false;
  int64_t greedy = 0;
  bool json = false;
};

Status run_score(const ScoreOptions& options, Console& console);

}  // namespace sluice
