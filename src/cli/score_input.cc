#include "cli/score_input.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr size_t kMaxIdsBytes = size_t{256} << 20;

Result<std::vector<int32_t>> read_list(const json& list, const std::string& where,
                                       int64_t vocabulary) {
  if (list.empty()) return invalid_argument("{}: the list of token ids is empty", where);
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const json& v : list) {
    const bool whole = v.is_number_integer();
    const bool fits =
        whole && (v.is_number_unsigned() ? v.get<uint64_t>() < static_cast<uint64_t>(vocabulary)
                                         : v.get<int64_t>() >= 0 && v.get<int64_t>() < vocabulary);
    if (!fits)
      return invalid_argument("{}: [{}]: expected a token id in [0, {}), got {}", where, ids.size(),
                              vocabulary, v.dump(-1, ' ', true, json::error_handler_t::replace));
    ids.push_back(v.get<int32_t>());
  }
  return ids;
}

}  // namespace

Result<ScoreIds> read_score_ids(const std::string& path, int64_t vocabulary) {
  SLUICE_ASSIGN_OR_RETURN(const json root, read_json_file(path, kMaxIdsBytes));
  if (!root.is_array() || root.empty())
    return invalid_argument("{}: expected a list of token ids or a list of such lists", path);
  ScoreIds out;
  out.ragged = root[0].is_array();
  if (!out.ragged) {
    SLUICE_ASSIGN_OR_RETURN(std::vector<int32_t> ids, read_list(root, path, vocabulary));
    out.lists.push_back(std::move(ids));
    return out;
  }
  for (size_t i = 0; i < root.size(); ++i) {
    if (!root[i].is_array())
      return invalid_argument("{}: [{}]: expected a list as the entries before it", path, i);
    SLUICE_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                            read_list(root[i], fmt::format("{}: [{}]", path, i), vocabulary));
    out.lists.push_back(std::move(ids));
  }
  return out;
}

ScoreWindows cut_windows(const std::vector<int32_t>& text, int64_t context, int32_t bos) {
  ScoreWindows out;
  const int64_t total = static_cast<int64_t>(text.size()), lead = bos >= 0 ? 1 : 0;
  const int64_t most = std::max<int64_t>(1, context - lead);
  const int64_t stride = std::max<int64_t>(1, context / 2);
  out.unpredicted = lead == 0 && total > 0 ? 1 : 0;
  for (int64_t start = 0, done = 0; done < total; start += stride) {
    const int64_t end = std::min(total, start + most);
    ScoreWindow w;
    if (lead == 1) w.ids.push_back(bos);
    w.ids.insert(w.ids.end(), text.begin() + start, text.begin() + end);
    w.first_target = std::max<int64_t>(1, done - start + lead);
    out.windows.push_back(std::move(w));
    done = end;
  }
  return out;
}

}  // namespace sluice
