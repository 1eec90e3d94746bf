#include "ops/moe_experts/rounding_profile.h"

namespace sluice {

std::string rounding_profile_names() {
  std::string names;
  for (const RoundingProfile& profile : kRoundingProfiles)
    names += (names.empty() ? "" : ", ") + std::string(profile.name);
  return names;
}

Result<RoundingProfile> parse_rounding_profile(std::string_view name) {
  for (const RoundingProfile& profile : kRoundingProfiles)
    if (profile.name == name) return profile;
  return invalid_argument("rounding profile: expected one of {}, got \"{}\"",
                          rounding_profile_names(), name);
}

}  // namespace sluice
