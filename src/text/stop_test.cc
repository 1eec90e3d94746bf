#include "text/stop.h"

#include <gtest/gtest.h>

#include <random>

namespace sluice {
namespace {

struct Outcome {
  std::string text;
  std::string matched;
  bool operator==(const Outcome&) const = default;
};

Outcome feed(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Outcome out;
  for (const std::string& piece : pieces) out.text += matcher.push(piece);
  out.text += matcher.finish();
  out.matched = matcher.matched();
  return out;
}

// The definition: at the first byte where a stop string is complete, the longest of those.
Outcome by_definition(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops)
      if (stop.size() > longest.size() && stop.size() <= end &&
          text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = stop;
    if (!longest.empty()) return {text.substr(0, end - longest.size()), longest};
  }
  return {text, ""};
}

TEST(Stop, AcrossPieces) {
  EXPECT_EQ(feed({"STOP"}, {"abST", "OPcd"}), (Outcome{"ab", "STOP"}));
  EXPECT_EQ(feed({"STOP"}, {"abST", "ART"}), (Outcome{"abSTART", ""}));
  EXPECT_EQ(feed({"STOP"}, {"abSTO"}), (Outcome{"abSTO", ""}));
  EXPECT_EQ(feed({"\n\n"}, {"a\n", "\nb"}), (Outcome{"a", "\n\n"}));
  EXPECT_EQ(feed({"aab"}, {"a", "a", "a", "a", "b"}), (Outcome{"aa", "aab"}));
  EXPECT_EQ(feed({}, {"x"}), (Outcome{"x", ""}));
  EXPECT_EQ(feed({"", "y"}, {"xyz"}), (Outcome{"x", "y"}));
}

TEST(Stop, HoldsBackOnlyWhatCouldStop) {
  StopMatcher matcher({"<end>"});
  EXPECT_EQ(matcher.push("one <e"), "one ");
  EXPECT_EQ(matcher.push("x <"), "<ex ");
  EXPECT_EQ(matcher.push("end"), "");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.push("> more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("never"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(Stop, OverlappingStops) {
  EXPECT_EQ(feed({"abc", "b"}, {"xabc"}), (Outcome{"xa", "b"}));
  EXPECT_EQ(feed({"bc", "abc"}, {"xabc"}), (Outcome{"x", "abc"}));
  EXPECT_EQ(feed({"abcd", "bc"}, {"xab", "cd"}), (Outcome{"xa", "bc"}));
}

TEST(Stop, EveryCutGivesTheSame) {
  std::mt19937 random(7);
  const auto word = [&](size_t longest) {
    std::string out(1 + random() % longest, 'a');
    for (char& c : out) c = static_cast<char>('a' + random() % 2);
    return out;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + random() % 3);
    for (std::string& stop : stops) stop = word(5);
    const std::string text = word(14);
    const Outcome wanted = by_definition(stops, text);
    for (size_t cut = 0; cut <= text.size(); ++cut)
      EXPECT_EQ(feed(stops, {text.substr(0, cut), text.substr(cut)}), wanted);
    std::vector<std::string> bytes;
    for (const char c : text) bytes.emplace_back(1, c);
    EXPECT_EQ(feed(stops, bytes), wanted);
  }
}

}  // namespace
}  // namespace sluice
