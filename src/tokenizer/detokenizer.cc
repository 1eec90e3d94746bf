#include "tokenizer/detokenizer.h"

#include "tokenizer/tokenizer_data.h"
#include "tokenizer/unicode.h"

namespace sluice {
namespace {
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
}

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special)
    : data_(tokenizer.data_), skip_special_(skip_special), strip_left_(data_->strip_left) {}

void Detokenizer::end_byte_run(std::string& out) {
  if (byte_run_.empty()) return;
  if (is_valid_utf8(byte_run_)) {
    pending_ += byte_run_;
  } else {
    for (size_t i = 0; i < byte_run_.size(); ++i) pending_ += kReplacement;
  }
  byte_run_.clear();
  take_complete(false, out);
}

void Detokenizer::take_complete(bool last, std::string& out) {
  const std::string& strip = data_->strip_text;
  size_t at = 0;
  while (at < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(at);
    const Utf8Step step = utf8_step(rest);
    if (step.kind == Utf8Step::kIncomplete && !last) break;
    const std::string_view character =
        step.kind == Utf8Step::kComplete ? rest.substr(0, step.bytes) : kReplacement;
    at += step.bytes;
    if (strip_left_ > 0 && character == strip) {
      --strip_left_;
      continue;
    }
    strip_left_ = 0;
    out += character;
  }
  pending_.erase(0, at);
}

std::string Detokenizer::push(int32_t id) {
  std::string out;
  if (id < 0 || static_cast<size_t>(id) >= data_->pieces.size()) return out;
  const TokenizerData::Piece& piece = data_->pieces[static_cast<size_t>(id)];
  if (piece.kind == PieceKind::kNone || (piece.special && skip_special_)) return out;
  const auto bytes = std::string_view(data_->piece_bytes).substr(piece.offset, piece.length);
  if (piece.kind == PieceKind::kByte) {
    byte_run_ += bytes;
    return out;
  }
  end_byte_run(out);
  pending_ += bytes;
  take_complete(false, out);
  return out;
}

std::string Detokenizer::finish() {
  std::string out;
  end_byte_run(out);
  take_complete(true, out);
  strip_left_ = data_->strip_left;
  return out;
}

}  // namespace sluice
