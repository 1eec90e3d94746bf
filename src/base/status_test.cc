// Status, Result and the macros that pass them on.
#include "base/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

namespace sluice {
namespace {

TEST(Status, CarriesCodeAndSentence) {
  EXPECT_TRUE(ok_status().ok());
  const Status s = invalid_argument("op: {}: expected {}, got {}", "x", 1, 2);
  EXPECT_FALSE(s.ok());
  EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(s.message(), "op: x: expected 1, got 2");
  EXPECT_EQ(s.annotate("layer 3").message(), "layer 3: op: x: expected 1, got 2");
  EXPECT_TRUE(ok_status().annotate("layer 3").ok());
}

TEST(Status, EveryCodeHasItsName) {
  std::set<std::string_view> names;
  for (int c = 0; c <= static_cast<int>(StatusCode::kInternal); ++c)
    names.insert(status_code_name(static_cast<StatusCode>(c)));
  EXPECT_EQ(names.size(), static_cast<size_t>(StatusCode::kInternal) + 1);
  EXPECT_EQ(names.count("unknown"), 0u);
}

Result<std::unique_ptr<int>> make(bool good) {
  if (!good) return not_found("no such {}", "number");
  return std::make_unique<int>(7);
}
Result<int> twice(bool good) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<int> a, make(true));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<int> b, make(good));
  return *a + *b;
}
Status check(bool good) {
  SLUICE_RETURN_IF_ERROR(make(good).status());
  return ok_status();
}

TEST(Result, HoldsAValueOrTheReason) {
  EXPECT_EQ(twice(true).value(), 14);
  EXPECT_EQ(twice(false).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(twice(false).status().message(), "no such number");
  EXPECT_TRUE(check(true).ok());
  EXPECT_FALSE(check(false).ok());
  const Result<int> mistaken = ok_status();
  EXPECT_FALSE(mistaken.ok());
  EXPECT_EQ(mistaken.status().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace sluice
