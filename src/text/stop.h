// Stop strings in a stream of text, wherever the pieces are cut.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// Feed text with push(); it gives back what may be shown. Text that could still become a stop
// string is held back. At the first byte where a stop string is complete the stream ends: what
// stands before that stop string has been given out, the stop string itself never is. Of several
// that end at the same byte, the longest counts. How the text is cut into pieces changes nothing.
class StopMatcher {
 public:
  // Empty stop strings are passed over.
  explicit StopMatcher(std::vector<std::string> stops);

  // The text that is certain now. After a stop nothing more is given out.
  std::string push(std::string_view text);
  // The end of the stream: what was held back, unless a stop string was found.
  std::string finish();

  bool stopped() const { return matched_ >= 0; }
  // The stop string that was found; empty if none was.
  std::string_view matched() const {
    return matched_ < 0 ? std::string_view()
                        : std::string_view(stops_[static_cast<size_t>(matched_)].text);
  }

 private:
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // Knuth-Morris-Pratt: the longest border of each prefix
    size_t progress = 0;           // how much of `text` the stream ends with
  };
  std::vector<Stop> stops_;
  std::string held_;
  int matched_ = -1;
};

}  // namespace sluice
