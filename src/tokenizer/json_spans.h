// The two big members of a tokenizer.json, read without building a document.
//
// A vocabulary has hundreds of thousands of entries, the merges as many pairs. cut_model() takes
// both out of the text (leaving `null`), so that the strict parser of base/json.h sees only the
// small rest, and JsonSpan reads them with the same strictness, some ten times faster.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace sluice {

struct CutModel {
  std::string rest;                    // the text with `null` in place of the members
  std::string_view vocab, merges;      // the members' values; empty if absent
  size_t vocab_at = 0, merges_at = 0;  // their byte offsets in the text
};
// Never fails: text that is not JSON is left for the strict parser to refuse.
CutModel cut_model(std::string_view text);

// A cursor over one JSON value. Every function returns false on an error, which status() explains.
class JsonSpan {
 public:
  JsonSpan(std::string_view text, size_t offset, std::string_view where)
      : text_(text), offset_(offset), where_(where) {}

  char peek();                    // the next character that is not white space; 0 at the end
  bool accept(char c);            // takes `c` if it is next
  bool expect(char c);            // takes `c`, or fails
  bool string(std::string& out);  // a string, unescaped; must be valid Unicode
  bool integer(int64_t& out);
  bool at_end() { return peek() == 0; }
  bool fail(std::string_view what);
  const Status& status() const { return status_; }

 private:
  bool escape(std::string& out);
  bool hex4(uint32_t& out);

  std::string_view text_;
  size_t offset_;
  std::string_view where_;
  size_t at_ = 0;
  Status status_;
};

}  // namespace sluice
