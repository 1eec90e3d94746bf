#include "base/json.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

namespace sluice {
namespace {

using nlohmann::json;

// Builds the value itself (rather than checking first and parsing again), with its own stack of
// open containers, so that one pass enforces the limits.
class StrictSax : public nlohmann::json_sax<json> {
 public:
  StrictSax(std::string_view where, const JsonLimits& limits) : where_(where), limits_(limits) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool v) override { return put(v); }
  bool number_integer(number_integer_t v) override { return put(v); }
  bool number_unsigned(number_unsigned_t v) override { return put(v); }
  bool number_float(number_float_t v, const string_t&) override { return put(v); }
  bool string(string_t& v) override { return put(std::move(v)); }
  bool binary(binary_t&) override { return fail("binary values are not JSON"); }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool key(string_t& k) override {
    if (limits_.reject_duplicate_keys && !keys_.back().insert(k).second)
      return fail(fmt::format("key \"{}\" occurs twice in one object", k));
    key_ = k;
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    std::string_view why = e.what();
    if (auto at = why.find("syntax error"); at != std::string_view::npos) why.remove_prefix(at);
    return fail(fmt::format("not valid JSON at byte {}: {}", position, why));
  }

  json root;
  Status status;

 private:
  bool fail(std::string message) {
    if (status.ok()) status = data_loss("{}: {}", where_, message);
    return false;
  }
  json* place(json&& v) {
    if (++values_ > limits_.max_values) {
      fail(fmt::format("more than {} JSON values", limits_.max_values));
      return nullptr;
    }
    if (stack_.empty()) {
      root = std::move(v);
      return &root;
    }
    json& top = *stack_.back();
    if (top.is_array()) {
      top.push_back(std::move(v));
      return &top.back();
    }
    json& slot = top[key_];
    slot = std::move(v);
    return &slot;
  }
  template <class V>
  bool put(V&& v) {
    return place(json(std::forward<V>(v))) != nullptr;
  }
  bool open(json&& v) {
    if (static_cast<int>(stack_.size()) >= limits_.max_depth)
      return fail(fmt::format("nested deeper than {} levels", limits_.max_depth));
    json* slot = place(std::move(v));
    if (slot == nullptr) return false;
    stack_.push_back(slot);
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  std::string_view where_;
  const JsonLimits& limits_;
  std::vector<json*> stack_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string key_;
  size_t values_ = 0;
};

}  // namespace

Result<json> parse_json(std::string_view text, std::string_view where, const JsonLimits& limits) {
  if (text.substr(0, 3) == "\xEF\xBB\xBF")
    return data_loss("{}: starts with a byte order mark; expected plain UTF-8 JSON", where);
  // The parser takes a NUL byte for the end of its input, whatever follows.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos)
    return data_loss("{}: not valid JSON at byte {}: a NUL byte", where, nul);
  StrictSax sax(where, limits);
  try {
    const bool done = json::sax_parse(text.begin(), text.end(), &sax);
    if (!sax.status.ok()) return sax.status;
    if (!done) return data_loss("{}: not valid JSON", where);
  } catch (const std::exception& e) {
    return data_loss("{}: not valid JSON: {}", where, e.what());
  }
  return std::move(sax.root);
}

Result<std::string> read_text_file(const std::string& path, size_t max_bytes) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0)
    return Status(errno == ENOENT ? StatusCode::kNotFound : StatusCode::kIoError,
                  fmt::format("{}: {}", path, std::strerror(errno)));
  if (!S_ISREG(st.st_mode))
    return invalid_argument("{}: expected a regular file, got a {}", path,
                            S_ISDIR(st.st_mode) ? "directory" : "special file");
  if (static_cast<uint64_t>(st.st_size) > max_bytes)
    return data_loss("{}: {} bytes, at most {} expected of such a file", path, st.st_size,
                     max_bytes);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error("{}: {}", path, std::strerror(errno));
  std::string text(static_cast<size_t>(st.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  const int error = errno;
  ::close(fd);
  if (done != text.size())
    return io_error("{}: read {} of {} bytes: {}", path, done, text.size(),
                    done < text.size() && error != 0 ? std::strerror(error) : "file ended early");
  return text;
}

Result<json> read_json_file(const std::string& path, size_t max_bytes, const JsonLimits& limits) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, max_bytes));
  return parse_json(text, path, limits);
}

}  // namespace sluice
