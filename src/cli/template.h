// The body of `sluice template`: a conversation as the prompt of a model's family.
#pragma once

#include <ostream>
#include <string>

#include "base/status.h"

namespace sluice {

struct TemplateOptions {
  std::string model;     // a model directory; only its config.json is read
  std::string messages;  // a JSON file as text/chat_json.h describes it
};

// Writes the rendered prompt and nothing else, without a line break of its own.
Status run_template(const TemplateOptions& options, std::ostream& out);

}  // namespace sluice
