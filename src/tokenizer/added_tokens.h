// Added tokens: strings that are found in the text before any word is cut.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice {

struct AddedToken {
  int32_t id = -1;
  std::string text;
  bool special = false;      // left out by decode(skip_special)
  bool normalized = false;   // looked for in the normalised text, not in the raw one
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space on its left along
  bool rstrip = false;       // ... on its right
  // Controls a conversation (or is reserved), so that text typed by a user must not become it.
  // False for plain vocabulary such as Gemma's newline runs and HTML tags.
  bool control = true;
};

// Which added tokens encode() recognises in its text.
enum class AddedTokens {
  kAll,         // control tokens too: templates, trusted prompts
  kVocabulary,  // only those that are ordinary vocabulary: what people and tools wrote
};

// Finds the leftmost, then longest added token; a trie over bytes.
class AddedTokenMatcher {
 public:
  void add(std::string_view text, const AddedToken& token);

  struct Piece {
    int32_t id;  // kNoToken (-1): ordinary text
    std::string_view text;
  };
  // Cuts `text` into pieces that cover it, or nearly: stripped white space belongs to a token.
  void split(std::string_view text, AddedTokens which, std::vector<Piece>& out) const;

  bool empty() const { return tokens_.empty(); }

 private:
  struct Node {
    int32_t token = -1;  // index into tokens_
    std::vector<std::pair<uint8_t, int32_t>> children;
  };
  struct Match {
    const AddedToken* token = nullptr;
    size_t length = 0;
  };
  Match match_at(std::string_view text, size_t at, AddedTokens which) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<int32_t, 256> roots_{};  // children of the root; 0 = none
  std::vector<AddedToken> tokens_;
};

}  // namespace sluice
