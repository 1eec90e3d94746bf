#include "tokenizer/pipeline_json.h"

#include <nlohmann/json.hpp>

namespace sluice {
namespace {

using nlohmann::json;

// {"String": literal} or {"Regex": expression}.
struct Pattern {
  std::string literal, regex;
};
Status read_pattern(const JsonFields& fields, Pattern& out) {
  const json* const pattern = fields.member("pattern");
  if (pattern == nullptr) return data_loss("{}: no pattern", fields.where());
  JsonFields inner(*pattern, fields.where() + ".pattern");
  out.literal = inner.string("String");
  out.regex = inner.string("Regex");
  SLUICE_RETURN_IF_ERROR(inner.status());
  if (out.literal.empty() == out.regex.empty())
    return data_loss("{}: expected one of \"String\" and \"Regex\", not empty", inner.where());
  return ok_status();
}

// Calls read(part, where) for each member of a Sequence's list.
template <class Read>
Status each_of(const JsonFields& fields, const char* key, const Read& read) {
  const json* const list = fields.member(key);
  if (list == nullptr || !list->is_array())
    return data_loss("{}: expected a list \"{}\"", fields.where(), key);
  size_t i = 0;
  for (const json& part : *list)
    SLUICE_RETURN_IF_ERROR(read(&part, fmt::format("{}[{}]", fields.where(), i++)));
  return ok_status();
}

Status not_known(const JsonFields& fields, std::string_view type) {
  return unimplemented("{}: type \"{}\" is not supported", fields.where(), type);
}

Status read_replace(const JsonFields& fields, JsonFields& values, NormalizerStep& step) {
  Pattern pattern;
  SLUICE_RETURN_IF_ERROR(read_pattern(fields, pattern));
  if (!pattern.regex.empty())
    return unimplemented("{}: replacing the expression `{}` is not supported", fields.where(),
                         pattern.regex);
  step.kind = NormalizerStep::kReplace;
  step.pattern = pattern.literal;
  step.content = values.string("content");
  return values.status();
}

Status read_split(JsonFields& fields, PreTokenizerSpec& spec) {
  Pattern pattern;
  SLUICE_RETURN_IF_ERROR(read_pattern(fields, pattern));
  const std::string behavior = fields.string("behavior", "Isolated");
  const bool invert = fields.boolean("invert", false);
  SLUICE_RETURN_IF_ERROR(fields.status());
  PreTokenizerStep step{};
  if (!pattern.regex.empty()) {
    // The known expressions match everything: inverted and removed is then the same as isolated.
    if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert))
      return unimplemented("{}: a pattern with behavior \"{}\"{} is not supported", fields.where(),
                           behavior, invert ? ", inverted," : "");
    auto known = split_pattern_of(pattern.regex);
    if (!known.ok()) return known.status().annotate(fields.where());
    step.kind = PreTokenizerStep::kPattern;
    step.pattern = *known;
  } else {
    step.literal = pattern.literal;
    if (behavior == "Isolated") {
      step.kind = PreTokenizerStep::kLiteralIsolated;
    } else if (behavior == "MergedWithPrevious") {
      step.kind = PreTokenizerStep::kLiteralWithPrev;
    } else if (behavior == "MergedWithNext") {
      step.kind = PreTokenizerStep::kLiteralWithNext;
    } else if (behavior == "Removed") {
      step.kind = PreTokenizerStep::kLiteralRemoved;
    } else {
      return unimplemented("{}: behavior \"{}\" is not supported", fields.where(), behavior);
    }
    if (invert) return unimplemented("{}: an inverted split is not supported", fields.where());
  }
  spec.steps.push_back(std::move(step));
  return ok_status();
}

Status read_strip_decoder(JsonFields& fields, DecoderSpec& spec) {
  spec.strip_text = fields.string("content");
  const int64_t start = fields.integer("start", 0);
  const int64_t stop = fields.integer("stop", 0);
  SLUICE_RETURN_IF_ERROR(fields.status());
  if (!spec.fuse || stop != 0 || start < 0 || start > 16)
    return unimplemented("{}: Strip is supported only after Fuse, at the start", fields.where());
  spec.strip_left = static_cast<size_t>(start);
  return ok_status();
}

// The ids of a TemplateProcessing's special token.
Status template_ids(const JsonFields& fields, const json& part, std::vector<int64_t>& out) {
  JsonFields token(part, fields.where() + ".single");
  const std::string name = token.string("id");
  SLUICE_RETURN_IF_ERROR(token.status());
  const json* const tokens = fields.member("special_tokens");
  const json* entry = nullptr;
  if (tokens != nullptr && tokens->is_object() && tokens->contains(name)) entry = &(*tokens)[name];
  if (entry == nullptr || !entry->is_object() || !entry->contains("ids") ||
      !(*entry)["ids"].is_array())
    return data_loss("{}: \"{}\" is not among its special_tokens", fields.where(), name);
  for (const json& id : (*entry)["ids"]) {
    if (!id.is_number_integer())
      return data_loss("{}: the ids of \"{}\" must be whole numbers", fields.where(), name);
    out.push_back(id.get<int64_t>());
  }
  return ok_status();
}

Status read_template(const JsonFields& fields, PostProcessorSpec& spec) {
  const json* const single = fields.member("single");
  if (single == nullptr || !single->is_array())
    return data_loss("{}: expected a list \"single\"", fields.where());
  bool after = false;
  for (const json& part : *single) {
    if (part.is_object() && part.contains("Sequence") && !after) {
      after = true;
    } else if (part.is_object() && part.contains("SpecialToken")) {
      SLUICE_RETURN_IF_ERROR(
          template_ids(fields, part["SpecialToken"], after ? spec.suffix : spec.prefix));
    } else {
      return data_loss("{}: \"single\" must be special tokens around one sequence", fields.where());
    }
  }
  if (!after) return data_loss("{}: \"single\" names no sequence", fields.where());
  spec.present = true;
  return ok_status();
}

}  // namespace

JsonFields::JsonFields(const json& object, std::string_view where)
    : object_(&object), where_(where) {
  if (!object.is_object()) status_ = data_loss("{}: expected an object", where);
}

const json* JsonFields::member(const char* key) const {
  if (!object_->is_object()) return nullptr;
  const auto it = object_->find(key);
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

bool JsonFields::boolean(const char* key, bool otherwise) {
  const json* const m = member(key);
  if (m == nullptr) return otherwise;
  if (m->is_boolean()) return m->get<bool>();
  if (status_.ok()) status_ = data_loss("{}: \"{}\" must be true or false", where_, key);
  return otherwise;
}

int64_t JsonFields::integer(const char* key, int64_t otherwise) {
  const json* const m = member(key);
  if (m == nullptr) return otherwise;
  if (m->is_number_integer() && (!m->is_number_unsigned() || m->get<uint64_t>() < 1ull << 62))
    return m->get<int64_t>();
  if (status_.ok()) status_ = data_loss("{}: \"{}\" must be a whole number", where_, key);
  return otherwise;
}

std::string JsonFields::string(const char* key, std::string_view otherwise) {
  const json* const m = member(key);
  if (m == nullptr) return std::string(otherwise);
  if (m->is_string()) return m->get<std::string>();
  if (status_.ok()) status_ = data_loss("{}: \"{}\" must be a string", where_, key);
  return std::string(otherwise);
}

Status read_normalizer(const json* part, const std::string& where,
                       std::vector<NormalizerStep>& steps) {
  if (part == nullptr) return ok_status();
  JsonFields fields(*part, where);
  const std::string type = fields.string("type");
  SLUICE_RETURN_IF_ERROR(fields.status());
  NormalizerStep step{};
  if (type == "Sequence")
    return each_of(fields, "normalizers", [&](const json* p, const std::string& w) {
      return read_normalizer(p, w, steps);
    });
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    step.kind = NormalizerStep::kUnicode;
    step.form = type == "NFC"    ? NormalForm::kNfc
                : type == "NFD"  ? NormalForm::kNfd
                : type == "NFKC" ? NormalForm::kNfkc
                                 : NormalForm::kNfkd;
  } else if (type == "Replace") {
    SLUICE_RETURN_IF_ERROR(read_replace(fields, fields, step));
  } else if (type == "Prepend") {
    step.kind = NormalizerStep::kPrepend;
    step.content = fields.string("prepend");
  } else if (type == "Lowercase") {
    step.kind = NormalizerStep::kLowerCase;
  } else if (type == "Strip") {
    step.kind = NormalizerStep::kStrip;
    step.left = fields.boolean("strip_left", true);
    step.right = fields.boolean("strip_right", true);
  } else {
    return not_known(fields, type);
  }
  steps.push_back(std::move(step));
  return fields.status();
}

Status read_pre_tokenizer(const json* part, const std::string& where, PreTokenizerSpec& spec) {
  if (part == nullptr) return ok_status();
  JsonFields fields(*part, where);
  const std::string type = fields.string("type");
  SLUICE_RETURN_IF_ERROR(fields.status());
  if (type == "Sequence")
    return each_of(fields, "pretokenizers", [&](const json* p, const std::string& w) {
      return read_pre_tokenizer(p, w, spec);
    });
  if (spec.byte_level) return unimplemented("{}: a step after ByteLevel is not supported", where);
  if (type == "Split") return read_split(fields, spec);
  PreTokenizerStep step{};
  if (type == "ByteLevel") {
    spec.byte_level = true;
    if (fields.boolean("add_prefix_space", true)) {
      step.kind = PreTokenizerStep::kPrefixSpace;
      spec.steps.push_back(step);
    }
    if (fields.boolean("use_regex", true)) {
      step.kind = PreTokenizerStep::kPattern;
      step.pattern = SplitPattern::kGpt2;
      spec.steps.push_back(step);
    }
  } else if (type == "Digits") {
    step.kind = fields.boolean("individual_digits", false) ? PreTokenizerStep::kEachDigit
                                                           : PreTokenizerStep::kDigits;
    spec.steps.push_back(step);
  } else {
    return not_known(fields, type);
  }
  return fields.status();
}

Status read_decoder(const json* part, const std::string& where, DecoderSpec& spec) {
  if (part == nullptr)
    return unimplemented("{}: absent; a tokenizer without a decoder is not supported", where);
  JsonFields fields(*part, where);
  const std::string type = fields.string("type");
  SLUICE_RETURN_IF_ERROR(fields.status());
  if (type == "Sequence")
    return each_of(fields, "decoders",
                   [&](const json* p, const std::string& w) { return read_decoder(p, w, spec); });
  const bool started = spec.byte_level || spec.byte_fallback || spec.fuse;
  if (type == "ByteLevel" && !started && spec.replace.empty()) {
    spec.byte_level = true;
  } else if (type == "ByteFallback" && !started) {
    spec.byte_fallback = true;
  } else if (type == "Fuse") {
    spec.fuse = true;
  } else if (type == "Strip") {
    return read_strip_decoder(fields, spec);
  } else if (type == "Replace" && !started) {
    NormalizerStep step{};
    SLUICE_RETURN_IF_ERROR(read_replace(fields, fields, step));
    spec.replace.push_back(std::move(step));
  } else {
    return unimplemented("{}: type \"{}\" is not supported {}", where, type,
                         started ? "at this place" : "");
  }
  return ok_status();
}

Status read_post_processor(const json* part, const std::string& where, PostProcessorSpec& spec) {
  if (part == nullptr) return ok_status();
  JsonFields fields(*part, where);
  const std::string type = fields.string("type");
  SLUICE_RETURN_IF_ERROR(fields.status());
  if (type == "Sequence")
    return each_of(fields, "processors", [&](const json* p, const std::string& w) {
      return read_post_processor(p, w, spec);
    });
  if (type == "ByteLevel") return ok_status();  // moves offsets only
  if (type != "TemplateProcessing") return not_known(fields, type);
  if (spec.present) return unimplemented("{}: more than one template is not supported", where);
  return read_template(fields, spec);
}

}  // namespace sluice
