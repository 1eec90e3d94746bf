// What `score` computes: lists of ids, or the windows of a text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace sluice {

struct ScoreIds {
  std::vector<std::vector<int32_t>> lists;
  bool ragged = false;  // a list of lists: results carry "seq.N."
};
// A JSON list of token ids, or a list of such lists.
Result<ScoreIds> read_score_ids(const std::string& path, int64_t vocabulary);

// A stretch of a text that is scored in one go. Targets: tokens[first_target ..], each predicted
// from what stands before it in the window.
struct ScoreWindow {
  std::vector<int32_t> ids;
  int64_t first_target = 0;  // index into ids
};
struct ScoreWindows {
  std::vector<ScoreWindow> windows;
  // Tokens that no window predicts: the first one of a text without a beginning-of-text token.
  int64_t unpredicted = 0;
};
// Windows of at most `context` ids, each beginning with `bos` (-1: none), half of it overlapping
// the one before; every token is a target exactly once, with at least half a window before it
// wherever the text has that much.
ScoreWindows cut_windows(const std::vector<int32_t>& text, int64_t context, int32_t bos);

}  // namespace sluice
