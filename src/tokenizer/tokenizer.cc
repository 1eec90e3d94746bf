#include "tokenizer/tokenizer.h"

#include <deque>

#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer_data.h"
#include "tokenizer/unicode.h"

namespace sluice {
namespace {

// Words that were seen already in this text: where their ids lie in the output. Direct-mapped.
class WordCache {
 public:
  static constexpr size_t kLongestWord = 48;  // bytes; longer words rarely come twice
  static constexpr size_t kWorthwhile = 256;  // bytes of text below which it does not pay
  explicit WordCache(size_t text_bytes) : entries_(text_bytes < kWorthwhile ? 0 : kEntries) {}

  struct Entry {
    std::string_view word;
    size_t first = 0;
    size_t count = 0;
  };
  // The word's slot, filled or not; null if the word is not to be cached.
  Entry* slot(std::string_view word) {
    if (entries_.empty() || word.size() > kLongestWord) return nullptr;
    return &entries_[std::hash<std::string_view>{}(word) % kEntries];
  }

 private:
  static constexpr size_t kEntries = 8192;
  std::vector<Entry> entries_;
};

class Encoder {
 public:
  Encoder(const TokenizerData& data, AddedTokens which, size_t text_bytes)
      : data_(data), which_(which), cache_(text_bytes) {}

  void text(std::string_view raw) {
    std::vector<AddedTokenMatcher::Piece> pieces;
    data_.raw_matcher.split(raw, which_, pieces);
    for (const auto& piece : pieces) {
      if (piece.id != kNoToken) {
        ids.push_back(piece.id);
      } else {
        span(piece.text);
      }
    }
  }

  // Keeps a text until the end, for text() to refer to.
  std::string_view keep(std::string text) { return storage_.emplace_back(std::move(text)); }

  std::vector<int32_t> ids;

 private:
  void span(std::string_view raw) {
    std::string_view normal = raw;
    if (!data_.normalizer.empty()) {
      // Kept until the end: the cache refers to words by views.
      normal = storage_.emplace_back(normalize(data_.normalizer, raw));
    }
    if (data_.normalized_matcher.empty()) {
      plain(normal);
      return;
    }
    std::vector<AddedTokenMatcher::Piece> pieces;
    data_.normalized_matcher.split(normal, which_, pieces);
    for (const auto& piece : pieces) {
      if (piece.id != kNoToken) {
        ids.push_back(piece.id);
      } else {
        plain(piece.text);
      }
    }
  }

  void plain(std::string_view normal) {
    std::vector<std::string_view> words;
    if (!normal.empty()) words.push_back(normal);
    for (const PreTokenizerStep& step : data_.pre_tokenizer) apply_step(step, words, storage_);
    for (const std::string_view word : words) {
      if (data_.seams.enabled) {
        cut_at_seams(word);
      } else {
        one_word(word);
      }
    }
  }

  void cut_at_seams(std::string_view word) {
    size_t start = 0;
    CodePoint before = code_point_at(word, 0);
    for (size_t at = before.bytes; at < word.size();) {
      const CodePoint c = code_point_at(word, at);
      if (data_.seams.may_cut(before.value, c.value)) {
        one_word(word.substr(start, at - start));
        start = at;
      }
      before = c;
      at += c.bytes;
    }
    one_word(word.substr(start));
  }

  void one_word(std::string_view word) {
    WordCache::Entry* const slot = cache_.slot(word);
    if (slot != nullptr && slot->word == word) {
      for (size_t i = 0; i < slot->count; ++i) ids.push_back(ids[slot->first + i]);
      return;
    }
    const size_t first = ids.size();
    encode_word(data_.model, word, scratch_, ids);
    if (slot != nullptr) *slot = {word, first, ids.size() - first};
  }

  const TokenizerData& data_;
  AddedTokens which_;
  WordCache cache_;
  BpeScratch scratch_;
  std::deque<std::string> storage_;
};

}  // namespace

int32_t TokenizerData::find_spelled(std::string_view text) const {
  if (const auto it = spelled.find(std::string(text)); it != spelled.end()) return it->second;
  if (!model.byte_level) return model.table.find(text);
  std::string bytes;
  return bytes_of_spelling(text, bytes) ? model.table.find(bytes) : kNoToken;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special,
                                       AddedTokens which) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = make_valid_utf8(text);
    text = repaired;
  }
  Encoder encoder(*data_, which, text.size());
  if (add_special) encoder.ids = data_->prefix;
  encoder.text(text);
  if (add_special)
    encoder.ids.insert(encoder.ids.end(), data_->suffix.begin(), data_->suffix.end());
  return std::move(encoder.ids);
}

std::vector<int32_t> Tokenizer::encode_runs(std::span<const TextRun> runs) const {
  size_t bytes = 0;
  for (const TextRun& run : runs) bytes += run.text.size();
  Encoder encoder(*data_, AddedTokens::kVocabulary, bytes);
  std::string pending;  // text since the last control token
  const auto flush = [&] {
    if (!pending.empty()) encoder.text(encoder.keep(std::move(pending)));
    pending.clear();
  };
  for (const TextRun& run : runs) {
    const std::string text = make_valid_utf8(run.text);
    if (run.which == AddedTokens::kVocabulary) {
      pending += text;
      continue;
    }
    std::vector<AddedTokenMatcher::Piece> pieces;
    data_->raw_matcher.split(text, AddedTokens::kAll, pieces);
    for (const auto& piece : pieces) {
      const bool plain = piece.id == kNoToken || !data_->is_control(piece.id);
      if (plain) {
        pending += piece.text;
      } else {
        flush();
        encoder.ids.push_back(piece.id);
      }
    }
  }
  flush();
  return std::move(encoder.ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  Detokenizer detokenizer(*this, skip_special);
  std::string out;
  for (const int32_t id : ids) out += detokenizer.push(id);
  return out + detokenizer.finish();
}

std::string Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= data_->pieces.size()) return {};
  const TokenizerData::Piece& piece = data_->pieces[static_cast<size_t>(id)];
  return data_->piece_bytes.substr(piece.offset, piece.length);
}

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  const int32_t id = data_->find_spelled(token);
  return id == kNoToken ? std::nullopt : std::optional<int32_t>(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < data_->pieces.size() &&
         data_->pieces[static_cast<size_t>(id)].special;
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(data_->pieces.size());
}
std::optional<int32_t> Tokenizer::bos() const {
  return data_->bos;
}
std::optional<int32_t> Tokenizer::eos() const {
  return data_->eos;
}

}  // namespace sluice
