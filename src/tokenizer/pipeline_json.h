// Reading the small parts of a tokenizer.json: normalizer, pre_tokenizer, decoder, post_processor.
//
// Whatever is not understood is refused with kUnimplemented and the name of the part.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/normalize.h"
#include "tokenizer/pretokenize.h"

namespace sluice {

// Typed access to the members of a JSON object; the first wrong type is remembered. An absent or
// null member gives the default.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string_view where);
  bool boolean(const char* key, bool otherwise);
  int64_t integer(const char* key, int64_t otherwise);
  std::string string(const char* key, std::string_view otherwise = {});
  // The member, or null if it is absent or JSON null.
  const nlohmann::json* member(const char* key) const;
  const std::string& where() const { return where_; }
  const Status& status() const { return status_; }

 private:
  const nlohmann::json* object_;
  std::string where_;
  Status status_;
};

// All take null for an absent part.
Status read_normalizer(const nlohmann::json* part, const std::string& where,
                       std::vector<NormalizerStep>& steps);

struct PreTokenizerSpec {
  std::vector<PreTokenizerStep> steps;
  bool byte_level = false;
};
Status read_pre_tokenizer(const nlohmann::json* part, const std::string& where,
                          PreTokenizerSpec& spec);

struct DecoderSpec {
  bool byte_level = false;
  bool byte_fallback = false;
  bool fuse = false;
  std::vector<NormalizerStep> replace;  // applied to each token's text
  size_t strip_left = 0;
  std::string strip_text;
};
Status read_decoder(const nlohmann::json* part, const std::string& where, DecoderSpec& spec);

struct PostProcessorSpec {
  bool present = false;  // a template says what is added
  std::vector<int64_t> prefix, suffix;
};
Status read_post_processor(const nlohmann::json* part, const std::string& where,
                           PostProcessorSpec& spec);

}  // namespace sluice
