#include "cli/score_input.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "cli/expert_picture.h"
#include "cli/score_text.h"

namespace sluice {
namespace {

TEST(CutWindows, EveryTokenIsATargetOnceWithHalfAWindowBeforeIt) {
  for (const int32_t bos : {-1, 7}) {
    for (const int64_t context : {2, 3, 8, 64, 100}) {
      for (const int64_t length : {1, 2, 7, 8, 9, 63, 64, 65, 300}) {
        SCOPED_TRACE(::testing::Message() << bos << " " << context << " " << length);
        std::vector<int32_t> text(static_cast<size_t>(length));
        std::iota(text.begin(), text.end(), 1000);
        const ScoreWindows cut = cut_windows(text, context, bos);
        std::vector<int> targets(text.size());
        for (const ScoreWindow& w : cut.windows) {
          ASSERT_LE(static_cast<int64_t>(w.ids.size()), context);
          ASSERT_GE(w.first_target, 1);
          if (bos >= 0) {
            EXPECT_EQ(w.ids[0], bos);
          }
          for (size_t i = static_cast<size_t>(w.first_target); i < w.ids.size(); ++i) {
            const int64_t position = w.ids[i] - 1000;
            ++targets[static_cast<size_t>(position)];
            // What stands before it: all of the text so far, or half a window.
            const int64_t lead = bos >= 0 ? 1 : 0;
            EXPECT_GE(static_cast<int64_t>(i) - lead,
                      std::min(position, context - lead - std::max<int64_t>(1, context / 2)));
          }
        }
        EXPECT_EQ(cut.unpredicted, bos < 0 ? 1 : 0);
        for (size_t i = 0; i < targets.size(); ++i)
          EXPECT_EQ(targets[i], i == 0 && bos < 0 ? 0 : 1) << i;
      }
    }
  }
}

TEST(NatsOf, IsTheNegativeLogarithmOfTheProbability) {
  const float even[4] = {3, 3, 3, 3};
  EXPECT_NEAR(nats_of(even, 4, 2), std::log(4.0), 1e-12);
  const float sure[3] = {0, 500, 0};
  EXPECT_NEAR(nats_of(sure, 3, 1), 0, 1e-12);
  EXPECT_NEAR(nats_of(sure, 3, 0), 500, 1e-9);
}

TEST(ExpertPicture, ShowsEachLayerRelativeToItsBusiestExpert) {
  const std::string picture = draw_expert_load({{}, {10, 0, 5, 10}, {0, 0, 0, 0}}, false);
  EXPECT_EQ(picture.find("layer   0"), std::string::npos);  // dense
  EXPECT_NE(picture.find("layer   1  9059"), std::string::npos) << picture;
  EXPECT_NE(picture.find("busiest   0 40.0 %"), std::string::npos) << picture;
  EXPECT_NE(picture.find("layer   2  (no tokens)"), std::string::npos) << picture;
  EXPECT_EQ(picture.find('\x1b'), std::string::npos);
  EXPECT_NE(draw_expert_load({{1, 2}}, true).find('\x1b'), std::string::npos);
  // More experts than cells: neighbours share one.
  EXPECT_NE(draw_expert_load({std::vector<int64_t>(128, 3)}, false, 8).find("99999999 "),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
