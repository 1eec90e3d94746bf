// What a model writes in a chat: reasoning and answer, told apart token by token.
//
// Every family marks the two with tokens of its own (<think>, <|channel>, harmony's channels). The
// markers are looked up as tokens, so text that merely looks like one changes nothing.
#pragma once

#include <string>

#include "text/chat.h"
#include "tokenizer/detokenizer.h"

namespace sluice {

// Text that a token added to the answer, to the reasoning, or to neither.
struct ReplyText {
  std::string answer, reasoning;
  std::string& part(bool is_reasoning) { return is_reasoning ? reasoning : answer; }
};

class ReplyReader {
 public:
  // Plain text: everything is answer.
  explicit ReplyReader(const Tokenizer& tokenizer);
  // A reply in a chat format; `prompt` is what it follows: some formats open the reasoning there.
  ReplyReader(const Tokenizer& tokenizer, ChatFormat format, const std::vector<int32_t>& prompt);

  ReplyText push(int32_t id);
  // The rest that was held back.
  ReplyText finish();

 private:
  enum class Place { kAnswer, kReasoning, kHeader };
  bool move(int32_t id);

  Detokenizer detokenizer_;
  ChatFormat format_ = ChatFormat::kChatMl;
  Place place_ = Place::kAnswer;
  // Token ids of the format's markers; -1 where the tokenizer has none.
  int32_t open_ = -1, close_ = -1, message_ = -1, end_ = -1, start_ = -1;
  std::string header_;        // a channel's name, as far as it has been read
  bool trim_ = false;         // white space between the parts belongs to neither
  bool header_line_ = false;  // the header ends with its line (Gemma), not with a marker
};

}  // namespace sluice
