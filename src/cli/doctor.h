// The body of `sluice doctor`: what this machine offers, and what Sluice makes of it.
#pragma once

#include "base/status.h"
#include "cli/console.h"

namespace sluice {

struct DoctorOptions {
  int threads = 0;
  bool quick = false;  // no measurements
  bool json = false;
};

Status run_doctor(const DoctorOptions& options, Console& console);

}  // namespace sluice
