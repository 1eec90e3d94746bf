// The body of `sluice pack`: a model becomes a packed store, or a store is verified.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "cli/console.h"

namespace sluice {

struct PackCommandOptions {
  std::string model;  // with `verify` and without `out`: the store to verify
  std::string out;
  std::string weights = "bf16", dense, head;  // dense, head: empty for the default
  int64_t group = 512;
  bool nearest = false;
  bool verify = false;
  int threads = 0;
  bool json = false;
};
Status run_pack(const PackCommandOptions& options, Console& console);

}  // namespace sluice
