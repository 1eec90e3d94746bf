// Running the program from outside: its exit code, what it printed, how it ended.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "model_runs.h"

namespace sluice::test {

namespace fs = std::filesystem;
using nlohmann::json;

struct Outcome {
  int exit = -1;  // exit code; -1: ended by a signal
  int signal = 0;
  std::string out, err;
  json last_line() const {
    const size_t end = out.find_last_not_of('\n');
    if (end == std::string::npos) return {};
    const size_t begin = out.rfind('\n', end);
    return json::parse(out.substr(begin == std::string::npos ? 0 : begin + 1), nullptr, false);
  }
};

inline std::string contents(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class CliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = fs::temp_directory_path() /
           (std::string("sluice_cli_") + info->name() + "_" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::string file(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name, std::ios::binary) << text;
    return (dir_ / name).string();
  }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }

  pid_t start(const std::vector<std::string>& args,
              const std::vector<std::string>& environment = {},
              const std::string& input = "") const {
    const std::string in = file("stdin", input);
    const pid_t child = ::fork();
    if (child != 0) return child;
    const int i = ::open(in.c_str(), O_RDONLY);
    const int o = ::open(path("stdout").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int e = ::open(path("stderr").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(i, 0), ::dup2(o, 1), ::dup2(e, 2);
    for (const std::string& v : environment) ::putenv(const_cast<char*>(v.c_str()));
    std::vector<char*> argv = {const_cast<char*>("sluice")};
    for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    ::execv(SLUICE_BINARY, argv.data());
    ::_exit(127);
  }
  Outcome finish(pid_t child) const {
    int status = 0;
    ::waitpid(child, &status, 0);
    Outcome r;
    if (WIFEXITED(status)) r.exit = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) r.signal = WTERMSIG(status);
    r.out = contents(path("stdout"));
    r.err = contents(path("stderr"));
    return r;
  }
  Outcome sluice(const std::vector<std::string>& args,
                 const std::vector<std::string>& environment = {},
                 const std::string& input = "") const {
    return finish(start(args, environment, input));
  }
  // Exit code 1 and one sentence that contains every word.
  void expect_failure(const std::vector<std::string>& args,
                      const std::vector<std::string>& words) const {
    const Outcome r = sluice(args);
    EXPECT_EQ(r.exit, 1) << r.err;
    EXPECT_EQ(r.signal, 0);
    for (const std::string& w : words) EXPECT_NE(r.err.find(w), std::string::npos) << r.err;
  }

  fs::path dir_;
};

inline std::string ids_json(const std::vector<int32_t>& ids) {
  return json(ids).dump();
}
inline const std::string kVoices = SLUICE_SOURCE_DIR "/models/three-voices";
inline bool have_voices() {
  return fs::exists(kVoices + "/model.safetensors") && fs::exists(kVoices + "/tokenizer.json");
}
#define NEEDS_VOICES() \
  if (!have_voices()) GTEST_SKIP() << "models/three-voices is not there"

class ScoreCliTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    model_ = golden_dir("qwen3moe-b");
    ids_ = read_tensors(model_ + "/golden.safetensors").at("input_ids").as<int32_t>();
    ids_file_ = file("ids.json", ids_json(ids_));
  }
  std::string model_, ids_file_;
  std::vector<int32_t> ids_;
};

}  // namespace sluice::test
