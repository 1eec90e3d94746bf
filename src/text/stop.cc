#include "text/stop.h"

#include <algorithm>

namespace sluice {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& text : stops) {
    if (text.empty()) continue;
    Stop stop;
    stop.text = std::move(text);
    stop.fallback.resize(stop.text.size());
    for (size_t i = 1, k = 0; i < stop.text.size(); ++i) {
      while (k > 0 && stop.text[i] != stop.text[k]) k = stop.fallback[k - 1];
      if (stop.text[i] == stop.text[k]) ++k;
      stop.fallback[i] = k;
    }
    stops_.push_back(std::move(stop));
  }
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped()) return {};
  for (const char c : text) {
    held_ += c;
    size_t longest = 0;
    for (size_t s = 0; s < stops_.size(); ++s) {
      Stop& stop = stops_[s];
      while (stop.progress > 0 && stop.text[stop.progress] != c)
        stop.progress = stop.fallback[stop.progress - 1];
      if (stop.text[stop.progress] == c) ++stop.progress;
      if (stop.progress == stop.text.size() && stop.progress > longest) {
        longest = stop.progress;
        matched_ = static_cast<int>(s);
      }
    }
    if (!stopped()) continue;
    std::string out = held_.substr(0, held_.size() - longest);
    held_.clear();
    return out;
  }
  size_t keep = 0;
  for (const Stop& stop : stops_) keep = std::max(keep, stop.progress);
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string StopMatcher::finish() {
  std::string out = std::move(held_);
  held_.clear();
  for (Stop& stop : stops_) stop.progress = 0;
  return stopped() ? std::string() : out;
}

}  // namespace sluice
