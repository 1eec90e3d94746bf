// The body of `sluice chat`: a conversation in the terminal.
#pragma once

#include <istream>

#include "cli/generate.h"

namespace sluice {

struct ChatOptions {
  LoadRequest load;
  SamplingFlags sampling;
  int64_t tokens = 1024;  // at most, per answer
  int64_t context = 0;    // of the whole conversation; 0: the model's
  std::string system;
  std::optional<bool> think;
  bool json = false;
};

// Reads messages from `in`, one line each ("\" at its end continues it), until its end or /exit.
Status run_chat(const ChatOptions& options, std::istream& in, Console& console);

}  // namespace sluice
