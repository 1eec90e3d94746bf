#include "model/config_reader.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace sluice {

using nlohmann::json;

std::string brief_json(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

namespace {

// Integers only: 8.0 and 1e3 are floats, which no published config uses for a size.
std::optional<int64_t> as_integer(const json& v) {
  if (!v.is_number_integer()) return std::nullopt;
  if (v.is_number_unsigned() && v.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    return std::nullopt;
  return v.get<int64_t>();
}

std::string range_text(int64_t min, int64_t max) {
  return fmt::format("an integer from {} to {}", min, max);
}

}  // namespace

ConfigReader::ConfigReader(const json& object, const json* outer, std::string where)
    : object_(object), outer_(outer), where_(std::move(where)) {}

void ConfigReader::fail(std::string message) {
  if (status_.ok()) status_ = invalid_argument("{}: {}", where_, message);
}

void ConfigReader::take(const Status& nested) {
  if (status_.ok()) status_ = nested;
}

void ConfigReader::fail_field(std::string_view name, std::string_view expected, const json* got) {
  fail(fmt::format("{}: expected {}, got {}", name, expected,
                   got == nullptr ? "nothing (the field is absent or null)" : brief_json(*got)));
}

const json* ConfigReader::find_named(FieldNames names, std::string_view* name) const {
  *name = *names.begin();
  for (const json* object : {&object_, outer_}) {
    if (object == nullptr || !object->is_object()) continue;
    for (std::string_view n : names) {
      const auto it = object->find(n);
      if (it == object->end() || it->is_null()) continue;
      *name = n;
      return &*it;
    }
  }
  return nullptr;
}

const json* ConfigReader::find(FieldNames names) const {
  std::string_view name;
  return find_named(names, &name);
}

int64_t ConfigReader::integer(FieldNames names, int64_t min, int64_t max,
                              std::optional<int64_t> absent) {
  std::string_view name;
  const json* v = find_named(names, &name);
  if (v == nullptr && absent) return *absent;
  const std::optional<int64_t> i = v == nullptr ? std::nullopt : as_integer(*v);
  if (i && *i >= min && *i <= max) return *i;
  fail_field(name, range_text(min, max), v);
  return min;
}

double ConfigReader::number(FieldNames names, double min, double max,
                            std::optional<double> absent) {
  std::string_view name;
  const json* v = find_named(names, &name);
  if (v == nullptr && absent) return *absent;
  if (v != nullptr && v->is_number()) {
    const double d = v->get<double>();
    if (std::isfinite(d) && d >= min && d <= max) return d;
  }
  fail_field(name, fmt::format("a number from {} to {}", min, max), v);
  return min;
}

bool ConfigReader::boolean(FieldNames names, bool absent) {
  std::string_view name;
  const json* v = find_named(names, &name);
  if (v == nullptr) return absent;
  if (v->is_boolean()) return v->get<bool>();
  fail_field(name, "true or false", v);
  return absent;
}

std::string ConfigReader::text(FieldNames names, std::string_view absent) {
  std::string_view name;
  const json* v = find_named(names, &name);
  if (v == nullptr) return std::string(absent);
  if (v->is_string()) return v->get<std::string>();
  fail_field(name, "a string", v);
  return std::string(absent);
}

std::vector<int64_t> ConfigReader::integers(FieldNames names, int64_t min, int64_t max) {
  std::string_view name;
  const json* v = find_named(names, &name);
  std::vector<int64_t> out;
  if (v == nullptr) return out;
  const json list = v->is_array() ? *v : json::array({*v});
  for (const json& item : list) {
    const std::optional<int64_t> i = as_integer(item);
    if (!i || *i < min || *i > max) {
      fail_field(name, fmt::format("{} or a list of such", range_text(min, max)), &item);
      return {};
    }
    out.push_back(*i);
  }
  return out;
}

std::vector<std::string> ConfigReader::texts(FieldNames names) {
  std::string_view name;
  const json* v = find_named(names, &name);
  std::vector<std::string> out;
  if (v == nullptr) return out;
  if (!v->is_array()) {
    fail_field(name, "a list of strings", v);
    return out;
  }
  for (const json& item : *v) {
    if (!item.is_string()) {
      fail_field(name, "a list of strings", &item);
      return {};
    }
    out.push_back(item.get<std::string>());
  }
  return out;
}

void ConfigReader::refuse_if_set(FieldNames names, std::string_view why) {
  std::string_view name;
  const json* v = find_named(names, &name);
  if (v == nullptr || (v->is_boolean() && !v->get<bool>())) return;
  if (const std::optional<int64_t> i = as_integer(*v); i && *i == 0) return;
  fail(fmt::format("{}: {}; got {}", name, why, brief_json(*v)));
}

}  // namespace sluice
