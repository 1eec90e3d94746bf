// The body of `sluice run`: prompts in, text out, and how fast it went.
#pragma once

#include <string>
#include <vector>

#include "cli/generate.h"

namespace sluice {

struct RunOptions {
  LoadRequest load;
  SamplingFlags sampling;
  std::vector<std::string> prompts;
  int64_t tokens = 256;  // at most, per prompt
  int64_t context = 0;   // prompt and answer together; 0: the model's
  bool chat = false;
  std::string system;
  std::optional<bool> think;
  bool ignore_eos = false;
  std::vector<std::string> stops;
  bool experts = false;
  bool json = false;
};

Status run_run(const RunOptions& options, Console& console);

}  // namespace sluice
