// Status and Result: how every fallible function of Sluice reports failure.
//
// A failed Status carries one sentence for a person: what failed, where, what was expected and
// what was found. The library never prints, throws across its surface, aborts or exits.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace sluice {

enum class StatusCode {
  kOk = 0,
  kInvalidArgument,    // the caller's values are wrong
  kNotFound,           // a file, tensor or name is absent
  kDataLoss,           // a file's bytes contradict themselves
  kUnimplemented,      // legal, but this build or device cannot do it
  kResourceExhausted,  // memory, disk, queue or KV blocks
  kIoError,            // the operating system said no
  kCancelled,
  kInternal,  // a bug in Sluice
};

std::string_view status_code_name(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // Puts `where` in front of the message: annotate("layer 3") -> "layer 3: ...".
  Status annotate(std::string_view where) const& {
    return ok() ? *this : Status(code_, fmt::format("{}: {}", where, message_));
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status ok_status() {
  return {};
}

template <class... A>
Status invalid_argument(fmt::format_string<A...> f, A&&... a) {
  return {StatusCode::kInvalidArgument, fmt::format(f, std::forward<A>(a)...)};
}
template <class... A>
Status not_found(fmt::format_string<A...> f, A&&... a) {
  return {StatusCode::kNotFound, fmt::format(f, std::forward<A>(a)...)};
}
template <class... A>
Status data_loss(fmt::format_string<A...> f, A&&... a) {
  return {StatusCode::kDataLoss, fmt::format(f, std::forward<A>(a)...)};
}
template <class... A>
Status unimplemented(fmt::format_string<A...> f, A&&... a) {
  return {StatusCode::kUnimplemented, fmt::format(f, std::forward<A>(a)...)};
}
template <class... A>
Status resource_exhausted(fmt::format_string<A...> f, A&&... a) {
  return {StatusCode::kResourceExhausted, fmt::format(f, std::forward<A>(a)...)};
}
template <class... A>
Status io_error(fmt::format_string<A...> f, A&&... a) {
  return {StatusCode::kIoError, fmt::format(f, std::forward<A>(a)...)};
}
template <class... A>
Status internal_error(fmt::format_string<A...> f, A&&... a) {
  return {StatusCode::kInternal, fmt::format(f, std::forward<A>(a)...)};
}

// Either a value or the Status that says why there is none. Reading value() of a failed Result is
// a bug in the caller; SLUICE_ASSIGN_OR_RETURN makes it unnecessary.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit by design
    if (status_.ok()) status_ = internal_error("a Result was made from an ok Status");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace sluice

#define SLUICE_CONCAT_(a, b) a##b
#define SLUICE_CONCAT(a, b) SLUICE_CONCAT_(a, b)
#define SLUICE_RETURN_IF_ERROR(expr)                                      \
  do {                                                                    \
    if (::sluice::Status status_ = (expr); !status_.ok()) return status_; \
  } while (0)
#define SLUICE_ASSIGN_OR_RETURN(lhs, expr) \
  SLUICE_ASSIGN_OR_RETURN_(SLUICE_CONCAT(result_, __LINE__), lhs, expr)
#define SLUICE_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return tmp.status();            \
  lhs = std::move(tmp).value()
