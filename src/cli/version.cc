#include "cli/version.h"

// Written by cmake/build_id.cmake in the build folder.
#include "sluice_build_id.h"

namespace sluice {

std::string_view version() {
  return SLUICE_VERSION;
}

std::string_view build_id() {
  return SLUICE_BUILD_ID;
}

}  // namespace sluice
