#include "ops/moe_experts/rounding_profile.h"

#include <string>

namespace sluice {

Result<RoundingProfile> parse_rounding_profile(std::string_view name) {
  std::string names;
  for (const RoundingProfile& profile : kRoundingProfiles) {
    if (profile.name == name) return profile;
    names += (names.empty() ? "" : ", ") + std::string(profile.name);
  }
  return invalid_argument("rounding profile: expected one of {}, got \"{}\"", names, name);
}

}  // namespace sluice
