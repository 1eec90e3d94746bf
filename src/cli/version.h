// What this program is: its version and the commit it was built from.
#pragma once

#include <string_view>

namespace sluice {

// "0.1.0": CHANGELOG.md says what each one brought.
std::string_view version();
// `git describe` of the sources at build time, "-dirty" with uncommitted changes; "unknown" outside
// a checkout.
std::string_view build_id();

}  // namespace sluice
