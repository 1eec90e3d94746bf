// ConfigReader: validated access to the fields of a config.json.
//
// Getters take the names under which a field is known (newest first), its range, and what it is
// when absent; null counts as absent. The first thing that is wrong is remembered as one sentence
// (file, field, expected, got) and a harmless value is returned, so that a family file reads like a
// table and asks status() once.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace sluice {

using FieldNames = std::initializer_list<std::string_view>;

class ConfigReader {
 public:
  // `where` names the file. Both objects must outlive the reader; `outer` (may be null) is where
  // fields are looked up that `object` lacks: configs of multimodal models nest the text fields.
  ConfigReader(const nlohmann::json& object, const nlohmann::json* outer, std::string where);

  const Status& status() const { return status_; }
  const std::string& where() const { return where_; }
  // Remembers `message` as the failure unless there is one already.
  void fail(std::string message);
  // Takes over the failure of a reader of a nested object.
  void take(const Status& nested);

  // The value under the first name that is present and not null.
  const nlohmann::json* find(FieldNames names) const;
  bool has(FieldNames names) const { return find(names) != nullptr; }

  int64_t integer(FieldNames names, int64_t min, int64_t max,
                  std::optional<int64_t> absent = std::nullopt);
  double number(FieldNames names, double min, double max,
                std::optional<double> absent = std::nullopt);
  bool boolean(FieldNames names, bool absent);
  std::string text(FieldNames names, std::string_view absent);
  // A list of integers, or one integer.
  std::vector<int64_t> integers(FieldNames names, int64_t min, int64_t max);
  std::vector<std::string> texts(FieldNames names);
  // Fails with `why` when the field is present and true, or a positive number.
  void refuse_if_set(FieldNames names, std::string_view why);

 private:
  const nlohmann::json* find_named(FieldNames names, std::string_view* name) const;
  void fail_field(std::string_view name, std::string_view expected, const nlohmann::json* got);

  const nlohmann::json& object_;
  const nlohmann::json* outer_;
  std::string where_;
  Status status_;
};

// A value for a message: at most 60 characters of it.
std::string brief_json(const nlohmann::json& value);

}  // namespace sluice
