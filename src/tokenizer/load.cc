// Tokenizer::load: a tokenizer.json becomes a TokenizerData.
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/json.h"
#include "tokenizer/json_spans.h"
#include "tokenizer/pipeline_json.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_data.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr size_t kMaxFileBytes = 512u << 20;

// Text reserved for controlling a conversation even where a file does not mark it special.
bool looks_reserved(std::string_view t) {
  return t.starts_with("<|") || t.ends_with("|>") || t.starts_with("<unused") || t == "<mask>" ||
         t == "[multimodal]";
}

class Loader {
 public:
  explicit Loader(std::string_view where) : where_(where) {}
  Result<std::shared_ptr<const TokenizerData>> load(std::string_view text, std::string_view config);

 private:
  struct Entry {
    int64_t id;
    size_t offset;
    size_t length;
  };
  std::string at(std::string_view part) const { return fmt::format("{}: {}", where_, part); }
  Status read_vocab(const CutModel& cut);
  Status read_added(const json& doc);
  Status make_table();
  Status read_model(const json& doc, const CutModel& cut);
  Status read_merges(const CutModel& cut);
  bool read_merge(JsonSpan& span, std::string& left, std::string& right);
  Status add_merge(size_t index, const std::string& left, const std::string& right);
  int32_t find(const std::string& spelled);
  void find_byte_tokens();
  Status place_added();
  void make_pieces();
  void make_piece(int32_t id, std::string_view spelled, bool special);
  Status finish(const json& doc, std::string_view config);
  Status check_ids(const std::vector<int64_t>& ids, std::vector<int32_t>& out) const;

  std::string where_;
  PreTokenizerSpec pre_;
  DecoderSpec decoder_;
  std::string texts_;           // the vocabulary's texts, one behind the other
  std::vector<Entry> entries_;  // ... in the file's order
  int64_t id_limit_ = 0;
  std::vector<AddedToken> added_;
  std::shared_ptr<TokenizerData> data_;
  std::string scratch_;
};

Result<std::shared_ptr<const TokenizerData>> Loader::load(std::string_view text,
                                                          std::string_view config) {
  const CutModel cut = cut_model(text);
  SLUICE_ASSIGN_OR_RETURN(const json doc, parse_json(cut.rest, where_));
  if (!doc.is_object() || !doc.contains("model") || !doc["model"].is_object())
    return data_loss("{}: not a tokenizer.json: it has no \"model\"", where_);
  JsonFields fields(doc, where_);
  std::vector<NormalizerStep> normalizer;
  SLUICE_RETURN_IF_ERROR(
      read_normalizer(fields.member("normalizer"), at("normalizer"), normalizer));
  SLUICE_RETURN_IF_ERROR(
      read_pre_tokenizer(fields.member("pre_tokenizer"), at("pre_tokenizer"), pre_));
  SLUICE_RETURN_IF_ERROR(read_decoder(fields.member("decoder"), at("decoder"), decoder_));
  if (pre_.byte_level != decoder_.byte_level)
    return unimplemented("{}: of pre_tokenizer and decoder only one is ByteLevel", where_);
  const json* const type = JsonFields(doc["model"], where_).member("type");
  if (type != nullptr && *type != "BPE")
    return unimplemented("{}: model type {} is not supported, only \"BPE\"", where_, type->dump());
  SLUICE_RETURN_IF_ERROR(read_vocab(cut));
  SLUICE_RETURN_IF_ERROR(read_added(doc));
  SLUICE_RETURN_IF_ERROR(make_table());
  data_->normalizer = std::move(normalizer);
  data_->pre_tokenizer = std::move(pre_.steps);
  data_->strip_left = decoder_.strip_left;
  data_->strip_text = decoder_.strip_text;
  SLUICE_RETURN_IF_ERROR(read_model(doc, cut));
  SLUICE_RETURN_IF_ERROR(place_added());
  make_pieces();
  SLUICE_RETURN_IF_ERROR(finish(doc, config));
  return std::shared_ptr<const TokenizerData>(std::move(data_));
}

Status Loader::read_vocab(const CutModel& cut) {
  if (cut.vocab.empty())
    return data_loss("{}: the model has no \"vocab\" that is an object", where_);
  JsonSpan span(cut.vocab, cut.vocab_at, where_);
  texts_.reserve(cut.vocab.size() / 2);
  span.expect('{');
  if (!span.accept('}')) {
    do {
      Entry entry{0, texts_.size(), 0};
      if (!span.string(scratch_) || !span.expect(':') || !span.integer(entry.id))
        return span.status();
      texts_ += scratch_;
      entry.length = scratch_.size();
      if (entry.id < 0 || entry.id > INT32_MAX)
        return data_loss("{}: token \"{}\" has the id {}", where_, scratch_, entry.id);
      id_limit_ = std::max(id_limit_, entry.id + 1);
      entries_.push_back(entry);
    } while (span.accept(','));
    if (!span.expect('}')) return span.status();
  }
  if (!span.at_end()) span.fail("something after the vocabulary");
  return span.status();
}

Status Loader::read_added(const json& doc) {
  const auto it = doc.find("added_tokens");
  if (it == doc.end() || it->is_null()) return ok_status();
  if (!it->is_array()) return data_loss("{}: \"added_tokens\" must be a list", where_);
  for (const json& item : *it) {
    JsonFields fields(item, at("added_tokens"));
    AddedToken token;
    const int64_t id = fields.integer("id", -1);
    token.text = fields.string("content");
    token.special = fields.boolean("special", false);
    token.normalized = fields.boolean("normalized", !token.special);
    token.single_word = fields.boolean("single_word", false);
    token.lstrip = fields.boolean("lstrip", false);
    token.rstrip = fields.boolean("rstrip", false);
    SLUICE_RETURN_IF_ERROR(fields.status());
    if (id < 0 || id > INT32_MAX)
      return data_loss("{}: added token \"{}\" has the id {}", where_, token.text, id);
    if (token.text.empty()) continue;
    token.id = static_cast<int32_t>(id);
    id_limit_ = std::max(id_limit_, id + 1);
    added_.push_back(std::move(token));
  }
  return ok_status();
}

// The model's own tokens. Byte-level tokens are kept as the bytes that they spell.
Status Loader::make_table() {
  // Ids may have holes, but a short file must not make a table of gigabytes.
  const auto most = static_cast<int64_t>(64 * (entries_.size() + added_.size()) + 65536);
  if (id_limit_ > most)
    return data_loss("{}: the largest id is {}, far above the {} tokens of the file", where_,
                     id_limit_ - 1, entries_.size() + added_.size());
  BpeModel model(TokenTable(static_cast<size_t>(id_limit_), texts_.size()), MergeTable(0));
  model.byte_level = pre_.byte_level;
  data_ = std::make_shared<TokenizerData>(std::move(model));
  for (const Entry& entry : entries_) {
    const std::string_view text = std::string_view(texts_).substr(entry.offset, entry.length);
    const auto id = static_cast<int32_t>(entry.id);
    bool added;
    if (pre_.byte_level && !bytes_of_spelling(text, scratch_)) {
      added = !data_->model.table.has(id) && data_->spelled.emplace(text, id).second;
    } else {
      added = data_->model.table.add(id, pre_.byte_level ? std::string_view(scratch_) : text);
    }
    if (!added)
      return data_loss("{}: token \"{}\" with id {}: the text or the id occurs twice", where_, text,
                       entry.id);
  }
  return ok_status();
}

Status Loader::read_model(const json& doc, const CutModel& cut) {
  JsonFields fields(doc["model"], at("model"));
  BpeModel& m = data_->model;
  for (const char* const key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!fields.string(key).empty())
      return unimplemented("{}: a {} is not supported", fields.where(), key);
  if (const json* const dropout = fields.member("dropout"); dropout != nullptr && *dropout != 0.0)
    return unimplemented("{}: dropout is not supported", fields.where());
  m.ignore_merges = fields.boolean("ignore_merges", false);
  m.fuse_unknown = fields.boolean("fuse_unk", false);
  m.byte_fallback = fields.boolean("byte_fallback", false);
  const std::string unknown = fields.string("unk_token");
  SLUICE_RETURN_IF_ERROR(fields.status());
  if (!unknown.empty()) {
    m.unknown = data_->find_spelled(unknown);
    if (m.unknown == kNoToken)
      return data_loss("{}: unk_token \"{}\" is not in the vocabulary", fields.where(), unknown);
  }
  find_byte_tokens();
  return read_merges(cut);
}

void Loader::find_byte_tokens() {
  BpeModel& m = data_->model;
  bool all = true;
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    m.byte_token[static_cast<size_t>(b)] =
        m.byte_level ? m.table.find({&byte, 1}) : m.table.find(fmt::format("<0x{:02X}>", b));
    all = all && m.byte_token[static_cast<size_t>(b)] != kNoToken;
  }
  // With an unknown token in play, cutting could part two characters that fuse into one.
  data_->seams.enabled = !m.byte_level && !m.ignore_merges && m.byte_fallback && all;
}

int32_t Loader::find(const std::string& spelled) {
  return data_->model.byte_level ? data_->find_spelled(spelled) : data_->model.table.find(spelled);
}

bool Loader::read_merge(JsonSpan& span, std::string& left, std::string& right) {
  if (span.accept('['))
    return span.string(left) && span.expect(',') && span.string(right) && span.expect(']');
  if (!span.string(left)) return false;  // the older form: "left right"
  const size_t space = left.find(' ');
  if (space == std::string::npos || left.find(' ', space + 1) != std::string::npos)
    return span.fail(fmt::format("the merge \"{}\" is not two tokens with a space between", left));
  right = left.substr(space + 1);
  left.resize(space);
  return true;
}

Status Loader::add_merge(size_t index, const std::string& left, const std::string& right) {
  const int32_t a = find(left);
  const int32_t b = find(right);
  const int32_t both = find(left + right);
  for (const auto& [id, text] :
       {std::pair(a, left), std::pair(b, right), std::pair(both, left + right)})
    if (id == kNoToken || text.empty())
      return data_loss("{}: merge {} (\"{}\", \"{}\"): \"{}\" is not in the vocabulary", where_,
                       index, left, right, text);
  data_->model.merges.set(a, b, {static_cast<uint32_t>(index), both});
  if (!data_->seams.enabled) return ok_status();
  if (byte_of_fallback(left) >= 0 || byte_of_fallback(right) >= 0) data_->seams.enabled = false;
  size_t last = left.size() - 1;
  while (last > 0 && (static_cast<uint8_t>(left[last]) & 0xC0) == 0x80) --last;
  data_->seams.join(code_point_at(left, last).value, code_point_at(right, 0).value);
  return ok_status();
}

Status Loader::read_merges(const CutModel& cut) {
  if (cut.merges.empty()) return data_loss("{}: the model has no list \"merges\"", where_);
  data_->model.merges = MergeTable(cut.merges.size() / 20);  // about as many as there are; it grows
  JsonSpan span(cut.merges, cut.merges_at, where_);
  span.expect('[');
  if (!span.accept(']')) {
    std::string left, right;
    size_t index = 0;
    do {
      if (!read_merge(span, left, right)) return span.status();
      SLUICE_RETURN_IF_ERROR(add_merge(index++, left, right));
    } while (span.accept(','));
    if (!span.expect(']')) return span.status();
  }
  if (!span.at_end()) span.fail("something after the merges");
  return span.status();
}

Status Loader::place_added() {
  std::vector<bool> taken(static_cast<size_t>(id_limit_));
  for (const Entry& entry : entries_) taken[static_cast<size_t>(entry.id)] = true;
  std::unordered_set<std::string_view> seen;
  for (AddedToken& token : added_) {
    const int32_t known = data_->find_spelled(token.text);
    const bool repeated = !seen.insert(token.text).second;
    token.control = token.special || known == kNoToken || looks_reserved(token.text);
    if (known != kNoToken) {
      token.id = known;  // the vocabulary's id counts, as in the `tokenizers` crate
    } else if (taken[static_cast<size_t>(token.id)]) {
      return data_loss("{}: added token \"{}\" has the id {} of another token", where_, token.text,
                       token.id);
    } else {
      taken[static_cast<size_t>(token.id)] = true;
      data_->spelled.emplace(token.text, token.id);
    }
    if (repeated) continue;
    if (token.normalized) {
      data_->normalized_matcher.add(normalize(data_->normalizer, token.text), token);
    } else {
      data_->raw_matcher.add(token.text, token);
    }
  }
  return ok_status();
}

void Loader::make_piece(int32_t id, std::string_view spelled, bool special) {
  TokenizerData::Piece& piece = data_->pieces[static_cast<size_t>(id)];
  std::string text(spelled);
  piece.kind = PieceKind::kText;
  if (decoder_.byte_level) {
    if (bytes_of_spelling(spelled, scratch_)) text = scratch_;
  } else {
    for (const NormalizerStep& step : decoder_.replace)
      text = replace_all(text, step.pattern, step.content);
    if (const int byte = decoder_.byte_fallback ? byte_of_fallback(text) : -1; byte >= 0) {
      text.assign(1, static_cast<char>(byte));
      piece.kind = PieceKind::kByte;
    }
  }
  piece.special = special;
  piece.offset = static_cast<uint32_t>(data_->piece_bytes.size());
  piece.length = static_cast<uint32_t>(text.size());
  data_->piece_bytes += text;
}

void Loader::make_pieces() {
  data_->pieces.resize(static_cast<size_t>(id_limit_));
  data_->piece_bytes.reserve(texts_.size());
  for (const Entry& entry : entries_)
    make_piece(static_cast<int32_t>(entry.id),
               std::string_view(texts_).substr(entry.offset, entry.length), false);
  for (const AddedToken& token : added_) {
    TokenizerData::Piece& piece = data_->pieces[static_cast<size_t>(token.id)];
    if (piece.kind == PieceKind::kNone) {
      make_piece(token.id, token.text, token.special);
    } else {
      piece.special = piece.special || token.special;
    }
    piece.control = piece.control || token.control;
  }
}

Status Loader::check_ids(const std::vector<int64_t>& ids, std::vector<int32_t>& out) const {
  for (const int64_t id : ids) {
    if (id < 0 || id >= id_limit_ ||
        data_->pieces[static_cast<size_t>(id)].kind == PieceKind::kNone)
      return data_loss("{}: post_processor adds the id {}, which no token has", where_, id);
    out.push_back(static_cast<int32_t>(id));
  }
  return ok_status();
}

// Post-processor and tokenizer_config.json: what is put around a text, bos and eos.
Status Loader::finish(const json& doc, std::string_view config) {
  PostProcessorSpec post;
  JsonFields fields(doc, where_);
  SLUICE_RETURN_IF_ERROR(
      read_post_processor(fields.member("post_processor"), at("post_processor"), post));
  SLUICE_RETURN_IF_ERROR(check_ids(post.prefix, data_->prefix));
  SLUICE_RETURN_IF_ERROR(check_ids(post.suffix, data_->suffix));
  if (config.empty()) return ok_status();
  const std::string config_where = fmt::format("{} (tokenizer_config.json)", where_);
  SLUICE_ASSIGN_OR_RETURN(const json settings, parse_json(config, config_where));
  JsonFields options(settings, config_where);
  SLUICE_RETURN_IF_ERROR(options.status());
  const auto token = [&](const char* key) -> std::optional<int32_t> {
    const json* m = options.member(key);
    if (m != nullptr && m->is_object() && m->contains("content")) m = &(*m)["content"];
    if (m == nullptr || !m->is_string()) return std::nullopt;
    const int32_t id = data_->find_spelled(m->get<std::string>());
    return id == kNoToken ? std::nullopt : std::optional<int32_t>(id);
  };
  data_->bos = token("bos_token");
  data_->eos = token("eos_token");
  if (!post.present && data_->bos && options.boolean("add_bos_token", false))
    data_->prefix = {*data_->bos};
  return options.status();
}

}  // namespace

Result<Tokenizer> Tokenizer::parse(std::string_view text, std::string_view config,
                                   std::string_view where) {
  Loader loader(where);
  SLUICE_ASSIGN_OR_RETURN(auto data, loader.load(text, config));
  return Tokenizer(std::move(data));
}

Result<Tokenizer> Tokenizer::load(const std::string& path) {
  struct stat st {};
  const bool directory = ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
  const std::string file = directory ? path + "/tokenizer.json" : path;
  SLUICE_ASSIGN_OR_RETURN(const std::string text, read_text_file(file, kMaxFileBytes));
  std::string config;
  if (const size_t slash = file.rfind('/'); file.substr(slash + 1) == "tokenizer.json") {
    const std::string beside = file.substr(0, slash + 1) + "tokenizer_config.json";
    auto read = read_text_file(beside, kMaxFileBytes);
    if (!read.ok() && read.status().code() != StatusCode::kNotFound) return read.status();
    if (read.ok()) config = std::move(*read);
  }
  return parse(text, config, file);
}

}  // namespace sluice
