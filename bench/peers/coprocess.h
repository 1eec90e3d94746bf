// What the two C++ co-processes share: their command line, and the loop over the lines of stdin.
//
//   --shape D,I,E,K,act --weights F --routing R --threads N --bytes B [--buffer NAME]
//
// First line of output, once the weights are in place: one JSON object that describes the side.
// Then for each line of input one JSON object:
//   time M FIRST COUNT   {"us": [...], "experts": [...]}: calls FIRST .. FIRST + COUNT - 1 of M
//                        tokens, call c on copy c % copies of the weights; experts touched by each
//   error M              {"error": e}: tokens 0 .. 15 in calls of M (once 16 or more: one call)
//   probe                (our side) {"read_gbs": ...}
//   rates                (our side) {"fma": GFLOP/s, ...}: arithmetic on registers
//   quit
// or {"failed": "a sentence"}.
#pragma once

#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "layer_data.h"

namespace peers {

struct Options {
  Shape shape;
  std::string shape_text, weights, buffer;
  Routing routing = Routing::kUniform;
  int threads = 2;
  double bytes = 2.3e9;  // the copies together hold at least this much
};

inline bool parse_options(int argc, char** argv, Options* o) {
  std::map<std::string, std::string> given;
  for (int i = 1; i + 1 < argc; i += 2) given[argv[i]] = argv[i + 1];
  o->shape_text = given["--shape"];
  o->weights = given["--weights"];
  o->buffer = given["--buffer"];
  if (given.count("--threads")) o->threads = std::stoi(given["--threads"]);
  if (given.count("--bytes")) o->bytes = std::stod(given["--bytes"]);
  const std::string routing = given.count("--routing") ? given["--routing"] : "uniform";
  return parse_shape(o->shape_text, &o->shape) && parse_routing(routing, &o->routing);
}

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + '"';
}
inline void say(const std::string& line) {
  std::cout << line << std::endl;
}
inline int fail(const std::string& why) {
  say("{\"failed\": " + quoted(why) + "}");
  return 1;
}

inline double microseconds() {
  using namespace std::chrono;
  return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}

// One call of the layer: x [M, D], ids and weights [M, K], on copy `copy` of the weights; returns
// its microseconds and leaves [M, D] in out.
struct Side {
  virtual ~Side() = default;
  virtual std::string prepare(
      int64_t m) = 0;  // before the calls of M tokens; a sentence on failure
  virtual double call(int64_t m, int64_t copy, const float* x, const int32_t* ids,
                      const float* weights, float* out) = 0;
  virtual int64_t copies() const = 0;
  virtual std::string command(const std::string& line) { return ""; }  // any other; "" = unknown
};

class Loop {
 public:
  Loop(const Options& options, Side& side) : o_(options), s_(options.shape), side_(side) {}

  int run() {
    std::string line;
    while (std::getline(std::cin, line)) {
      std::istringstream in(line);
      std::string word;
      int64_t m = 0, first = 0, count = 0;
      in >> word >> m >> first >> count;
      if (word == "quit") break;
      if (word == "time" && m > 0 && count > 0)
        time(m, first, count);
      else if (word == "error" && m > 0)
        error(m);
      else if (const std::string answer = side_.command(line); !answer.empty())
        say(answer);
      else
        fail("unknown command: " + line);
    }
    return 0;
  }

 private:
  bool prepare(int64_t m) {
    if (m == m_) return true;
    if (const std::string why = side_.prepare(m); !why.empty()) return fail(why), false;
    m_ = m;
    x_.resize(static_cast<size_t>(m * s_.d));
    out_.resize(x_.size());
    ids_.resize(static_cast<size_t>(m * s_.k));
    weights_.resize(ids_.size());
    fill_x(s_, 0, m, x_.data());
    return true;
  }
  // Ids first, then call after call: no worker falls asleep between two calls for want of work.
  void time(int64_t m, int64_t first, int64_t count) {
    if (!prepare(m)) return;
    const auto pairs = static_cast<size_t>(m * s_.k);
    std::vector<int32_t> ids(pairs * static_cast<size_t>(count));
    std::vector<float> weights(ids.size());
    std::string us, experts;
    for (int64_t c = 0; c < count; ++c) {
      const size_t at = pairs * static_cast<size_t>(c);
      route(s_, o_.routing, first + c, 0, m, &ids[at], &weights[at]);
      experts += (c == 0 ? "" : ", ") + std::to_string(distinct_experts(s_, &ids[at], pairs));
    }
    for (int64_t c = 0; c < count; ++c) {
      const size_t at = pairs * static_cast<size_t>(c);
      const double took = side_.call(m, (first + c) % side_.copies(), x_.data(), &ids[at],
                                     &weights[at], out_.data());
      us += (c == 0 ? "" : ", ") + std::to_string(took);
    }
    say("{\"us\": [" + us + "], \"experts\": [" + experts + "]}");
  }
  void error(int64_t m) {
    if (!prepare(m)) return;
    if (reference_.empty()) reference_ = reference_output(s_, o_.routing);
    std::vector<float> found(reference_.size());
    for (int64_t t = 0; t < kErrorTokens; t += m) {
      // A last call that reaches past the tokens that are compared simply has more of them.
      fill_x(s_, t, m, x_.data());
      route(s_, o_.routing, kErrorCall, t, m, ids_.data(), weights_.data());
      side_.call(m, 0, x_.data(), ids_.data(), weights_.data(), out_.data());
      const int64_t rows = std::min(m, kErrorTokens - t);
      std::copy_n(out_.begin(), rows * s_.d, found.begin() + t * s_.d);
    }
    fill_x(s_, 0, m, x_.data());
    char text[64];
    std::snprintf(text, sizeof text, "{\"error\": %.6g}", relative_error(reference_, found));
    say(text);
  }

  Options o_;
  Shape s_;
  Side& side_;
  int64_t m_ = 0;
  std::vector<float> x_, weights_, out_;
  std::vector<int32_t> ids_;
  std::vector<double> reference_;
};

}  // namespace peers
