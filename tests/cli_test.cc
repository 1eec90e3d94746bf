// The program from outside: exit codes, bad input, JSON lines, environment names, Ctrl-C.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "model_runs.h"

namespace sluice::test {
namespace {

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

std::string contents(const fs::path& path) {
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

std::string ids_json(const std::vector<int32_t>& ids) {
  return json(ids).dump();
}
const std::string kVoices = SLUICE_SOURCE_DIR "/models/three-voices";
bool have_voices() {
  return fs::exists(kVoices + "/model.safetensors") && fs::exists(kVoices + "/tokenizer.json");
}
#define NEEDS_VOICES() \
  if (!have_voices()) GTEST_SKIP() << "models/three-voices is not there"

class ScoreCliTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    model_ = golden_dir("qwen3moe-b");
    if (model_.empty()) GTEST_SKIP() << "no golden case qwen3moe-b";
    ids_ = read_tensors(model_ + "/golden.safetensors").at("input_ids").as<int32_t>();
    ids_file_ = file("ids.json", ids_json(ids_));
  }
  std::string model_, ids_file_;
  std::vector<int32_t> ids_;
};

TEST_F(CliTest, HelpAndVersionTeachAndSucceed) {
  const Outcome help = sluice({"--help"});
  EXPECT_EQ(help.exit, 0);
  for (const char* w : {"run", "chat", "score", "doctor", "Examples", "SLUICE_ARG_"})
    EXPECT_NE(help.out.find(w), std::string::npos) << w;
  const Outcome score = sluice({"score", "--help"});
  EXPECT_EQ(score.exit, 0);
  EXPECT_NE(score.out.find("SLUICE_ARG_CHUNK"), std::string::npos);
  const Outcome bench = sluice({"bench", "experts", "--help"});
  EXPECT_EQ(bench.exit, 0);
  for (const char* w : {"gpt-oss-20b", "mxfp4", "roof us", "SLUICE_ARG_TOKENS"})
    EXPECT_NE(bench.out.find(w), std::string::npos) << w;
  const Outcome version = sluice({"--version"});
  EXPECT_EQ(version.exit, 0);
  EXPECT_NE(version.out.find("reference"), std::string::npos);
}

TEST_F(CliTest, UsageErrorsExitWithTwo) {
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{
           {},
           {"frobnicate"},
           {"score"},
           {"score", "m"},
           {"score", "m", "--ids", "a"},
           {"score", "m", "--ids", "a", "--text", "b", "--out", "c"},
           {"score", "m", "--ids", "a", "--out", "c", "--chunk", "0"},
           {"score", "m", "--ids", "a", "--out", "c", "--compute", "f16"},
           {"score", "m", "--ids", "a", "--out", "c", "--threads", "many"},
           {"run", "m"},
           {"run", "m", "-p", "x", "--system", "y"},
           {"bench"},
           {"bench", "experts", "--tokens", "1,0"},
           {"bench", "experts", "--routing", "random"},
           {"doctor", "extra"}}) {
    const Outcome r = sluice(args);
    EXPECT_EQ(r.exit, 2) << json(args).dump() << r.err;
    EXPECT_FALSE(r.err.empty()) << json(args).dump();
  }
}

TEST_F(CliTest, DoctorKnowsTheMachine) {
  const json facts = sluice({"doctor", "--quick", "--json"}).last_line();
  ASSERT_TRUE(facts.is_object());
  EXPECT_GE(facts["cores"], 1);
  EXPECT_EQ(facts["isa_paths"][0], "reference");
  // Either devices, or one sentence that says why there are none.
  EXPECT_TRUE(facts["cuda"]["kernels"].is_boolean());
  EXPECT_EQ(facts["cuda"]["devices"].empty(), facts["cuda"].contains("why"));
  const json forced =
      sluice({"doctor", "--quick", "--json", "--threads", "3"}, {"SLUICE_ISA=reference"})
          .last_line();
  EXPECT_EQ(forced["isa"], "reference");
  EXPECT_EQ(forced["workers"], 3);
  EXPECT_EQ(sluice({"doctor", "--quick"}, {"SLUICE_ISA=sse9"}).exit, 1);
}

TEST_F(ScoreCliTest, StepsAreTheCeilingOfTokensOverChunk) {
  const auto length = static_cast<int64_t>(ids_.size());
  std::string first;
  for (const int64_t chunk : {1, 7, 64, 1000}) {
    for (const int threads : {1, 2}) {
      const Outcome r =
          sluice({"score", model_, "--ids", ids_file_, "--out", path("o.safetensors"), "--chunk",
                  std::to_string(chunk), "--threads", std::to_string(threads), "--json"});
      ASSERT_EQ(r.exit, 0) << r.err;
      const json line = r.last_line();
      EXPECT_EQ(line["steps"], ceil_div(length, chunk));
      EXPECT_EQ(line["rows_per_step"].size(), line["steps"]);
      EXPECT_EQ(line["rows_per_step"][0], std::min(chunk, length));
      EXPECT_EQ(line["workers"], threads);
      EXPECT_EQ(line["compute"], "bf16");
      EXPECT_EQ(line["arith"], "bf16_tile");
      const std::string bytes = contents(path("o.safetensors"));
      if (first.empty()) first = bytes;
      EXPECT_TRUE(bytes == first) << "chunk " << chunk << ", threads " << threads;
    }
  }
}

TEST_F(ScoreCliTest, AProfileIsTakenNamedAndChecked) {
  std::string f32, hf;
  for (std::string* bytes : {&f32, &hf}) {
    const Outcome r = sluice({"score", model_, "--ids", ids_file_, "--out", path("o.safetensors"),
                              "--profile", bytes == &hf ? "hf" : "f32", "--json"});
    ASSERT_EQ(r.exit, 0) << r.err;
    EXPECT_EQ(r.last_line()["profile"], bytes == &hf ? "hf" : "f32");
    *bytes = contents(path("o.safetensors"));
  }
  EXPECT_FALSE(f32 == hf);
  for (const auto& command : {std::vector<std::string>{"run", model_, "-p", "a"},
                              {"score", model_, "--ids", ids_file_, "--out", path("o.safetensors")},
                              {"bench", "experts"},
                              {"bench", "layer"}}) {
    std::vector<std::string> args = command;
    args.insert(args.end(), {"--profile", "vllm"});
    const Outcome r = sluice(args);
    EXPECT_EQ(r.exit, 2) << args[0];
    EXPECT_NE(r.err.find("expected one of f32, hf, aiter, max, tpu, mojo, mojo_quant, sglang"),
              std::string::npos)
        << r.err;
  }
}

TEST_F(ScoreCliTest, WritesWhatItSays) {
  const std::string batch = file("batch.json", json({ids_, {5, 6, 7}}).dump());
  const Outcome r = sluice({"score", model_, "--ids", batch, "--out", path("o.safetensors"),
                            "--compute", "f32", "--trace", "--greedy", "5", "--json"});
  ASSERT_EQ(r.exit, 0) << r.err;
  EXPECT_EQ(r.last_line()["sequences"], 2);
  EXPECT_EQ(r.last_line()["steps"], 1);
  EXPECT_EQ(r.last_line()["arith"], "f32_fma");
  const Tensors t = read_tensors(path("o.safetensors"));
  const auto length = static_cast<int64_t>(ids_.size());
  EXPECT_EQ(t.at("seq.0.logits").shape, (std::vector<int64_t>{length, 320}));
  EXPECT_EQ(t.at("seq.1.logits").shape, (std::vector<int64_t>{3, 320}));
  EXPECT_EQ(t.at("seq.1.hidden.0").shape, (std::vector<int64_t>{3, 96}));
  EXPECT_TRUE(t.contains("seq.0.hidden.4"));
  EXPECT_EQ(t.at("seq.0.router.0.ids").shape, (std::vector<int64_t>{length, 3}));
  EXPECT_FALSE(t.contains("seq.0.router.1.ids"));  // a dense layer
  EXPECT_EQ(t.at("seq.0.greedy").shape, (std::vector<int64_t>{5}));
  const Tensors golden = read_tensors(model_ + "/golden.safetensors");
  const auto expected = golden.at("greedy").as<int32_t>();
  EXPECT_EQ(t.at("seq.0.greedy").as<int32_t>(),
            (std::vector<int32_t>(expected.begin(), expected.begin() + 5)));
}

TEST_F(ScoreCliTest, EveryFlagHasAnEnvironmentName) {
  const Outcome r =
      sluice({"score"}, {"SLUICE_ARG_MODEL=" + model_, "SLUICE_ARG_IDS=" + ids_file_,
                         "SLUICE_ARG_OUT=" + path("o.safetensors"), "SLUICE_ARG_CHUNK=10",
                         "SLUICE_ARG_JSON=true", "SLUICE_ARG_COMPUTE=f32", "SLUICE_ARG_THREADS=1"});
  ASSERT_EQ(r.exit, 0) << r.err;
  EXPECT_EQ(r.last_line()["steps"], ceil_div(static_cast<int64_t>(ids_.size()), 10));
  EXPECT_EQ(r.last_line()["compute"], "f32");
}

TEST_F(CliTest, AnUnknownCommandIsNamed) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"bogus"}, {"bench", "bogus"}}) {
    const Outcome r = sluice(words);
    EXPECT_EQ(r.exit, 2);
    const std::string named = fmt::format("no command \"{}\"", fmt::join(words, " "));
    EXPECT_NE(r.err.find(named), std::string::npos) << r.err;
  }
}

TEST_F(CliTest, EnvironmentNamesOfOtherCommandsAreLeftAlone) {
  const Outcome r =
      sluice({"doctor", "--quick"}, {"SLUICE_ARG_CHUNK=bogus", "SLUICE_ARG_SYSTEM=x"});
  EXPECT_EQ(r.exit, 0) << r.err;
  EXPECT_EQ(sluice({"doctor", "--quick"}, {"SLUICE_ARG_THREADS=bogus"}).exit, 2);
}

TEST_F(ScoreCliTest, BadIdsAreExplained) {
  const auto with = [&](const std::string& text) {
    return std::vector<std::string>{
        "score", model_, "--ids", file("bad.json", text), "--out", path("o.safetensors")};
  };
  expect_failure(with(""), {"bad.json"});
  expect_failure(with("[1, 2"), {"bad.json"});
  expect_failure(with("{\"ids\": [1]}"), {"list"});
  expect_failure(with("[]"), {"list"});
  expect_failure(with("[[1], []]"), {"[1]", "empty"});
  expect_failure(with("[1, 320]"), {"[1]", "320"});
  expect_failure(with("[1, -1]"), {"-1"});
  expect_failure(with("[1, 1.5]"), {"1.5"});
  expect_failure(with("[1, 99999999999999999999]"), {"[0, 320)"});
  expect_failure(with("[1, [2]]"), {"[2]"});
  expect_failure(with("[[1], 2]"), {"[1]"});
  expect_failure(with("[1, \"2\"]"), {"\"2\""});
  expect_failure(with(ids_json(std::vector<int32_t>(5000, 1))), {"5000", "4096"});
  EXPECT_FALSE(fs::exists(path("o.safetensors")));
}

TEST_F(ScoreCliTest, BadPathsAreExplained) {
  const std::string out = path("o.safetensors");
  expect_failure({"score", path("nowhere"), "--ids", ids_file_, "--out", out}, {"nowhere"});
  expect_failure({"score", model_, "--ids", path("nowhere"), "--out", out}, {"nowhere"});
  expect_failure({"score", model_, "--ids", dir_.string(), "--out", out}, {dir_.string()});
  expect_failure({"score", model_, "--ids", ids_file_, "--out", dir_.string()}, {dir_.string()});
  expect_failure({"score", model_, "--ids", ids_file_, "--out", path("no/such/o.safetensors")},
                 {"no/such"});
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  expect_failure({"score", model_, "--ids", path("fifo"), "--out", out}, {"fifo"});
  expect_failure({"score", model_, "--ids", ids_file_, "--out", path("fifo")}, {"fifo"});
  expect_failure({"score", model_, "--ids", ids_file_, "--out", "/dev/null"}, {"/dev/null"});
  // Nothing half-written stays behind.
  for (const auto& entry : fs::directory_iterator(dir_))
    EXPECT_EQ(entry.path().string().find("safetensors"), std::string::npos) << entry.path();
}

TEST_F(ScoreCliTest, BadPacksAreExplained) {
  const std::string store = path("store");
  const auto with = [&](const std::vector<std::string>& options) {
    std::vector<std::string> args = {"pack", model_, "-o", store};
    args.insert(args.end(), options.begin(), options.end());
    return args;
  };
  expect_failure(with({"--weights", "q4"}), {"weights: format: expected one of f32", "\"q4\""});
  expect_failure(with({"--head", "int5"}), {"head: format: expected", "\"int5\""});
  expect_failure(with({"--weights", "int4", "--group", "100"}),
                 {"group", "128, 256 or 512", "100"});
  expect_failure(with({"--group", "128"}), {"group: is for int4 and int8"});
  expect_failure({"pack", model_}, {"expected -o STORE"});
  expect_failure({"pack", "--verify", model_}, {model_, "expected a packed store"});
  expect_failure({"pack", model_, "-o", path("no/such")}, {"no/such", "cannot make"});
  fs::create_directories(store);
  file("store/mine", "x");
  expect_failure(with({}), {store, "a directory with mine"});
  EXPECT_EQ(contents(store + "/mine"), "x");
  // What `run` would refuse, `inspect` foretells.
  expect_failure({"inspect", model_, "--mode", "int"}, {"mode int is for weights in"});
}

TEST_F(ScoreCliTest, AnErrorIsAJsonLineToo) {
  const Outcome r =
      sluice({"score", path("nowhere"), "--ids", ids_file_, "--out", path("o"), "--json"});
  EXPECT_EQ(r.exit, 1);
  EXPECT_NE(r.last_line()["error"]["message"].get<std::string>().find("nowhere"),
            std::string::npos);
}

TEST_F(CliTest, ScoreGivesBitsPerByteWhateverTheChunk) {
  NEEDS_VOICES();
  std::string text =
      "It is a truth universally acknowledged, that a single man in possession of a "
      "good fortune, must be in want of a wife.\n";
  for (int i = 0; i < 5; ++i) text += text;  // several windows
  const std::string input = file("text.txt", text);
  double first = 0;
  for (const char* chunk : {"64", "100"}) {
    const Outcome r = sluice({"score", kVoices, "--text", input, "--chunk", chunk, "--json"});
    ASSERT_EQ(r.exit, 0) << r.err;
    const json line = r.last_line();
    EXPECT_EQ(line["bytes"], text.size());
    EXPECT_GT(line["windows"], 1);
    const double bits = line["bits_per_byte"];
    EXPECT_GT(bits, 0.0);
    EXPECT_LT(bits, 2.5);
    if (first == 0) first = bits;
    EXPECT_EQ(bits, first);
  }
  expect_failure({"score", kVoices, "--text", file("empty.txt", "")}, {"empty"});
}

TEST_F(CliTest, RunGivesTheSameTextAloneAndInABatch) {
  NEEDS_VOICES();
  const std::vector<std::string> flags = {"-n", "12", "--seed", "5", "--json"};
  const auto run = [&](std::vector<std::string> args) {
    args.insert(args.begin(), {"run", kVoices});
    args.insert(args.end(), flags.begin(), flags.end());
    const Outcome r = sluice(args);
    EXPECT_EQ(r.exit, 0) << r.err;
    return r.last_line();
  };
  const json one = run({"-p", "In the beginning"}), two = run({"-p", "She was"});
  const json both = run({"-p", "In the beginning", "-p", "She was", "--experts"});
  EXPECT_EQ(both["outputs"][0], one["outputs"][0]);
  EXPECT_EQ(both["outputs"][1], two["outputs"][0]);
  EXPECT_EQ(run({"-p", "She was"})["outputs"], two["outputs"]);
  EXPECT_GT(one["decode_tokens_per_second"], 0);
  EXPECT_GT(one["peak_memory_bytes"], 0);
  EXPECT_FALSE(both["experts"].empty());
}

TEST_F(CliTest, RunStreamsTextAndKeepsTheRestOffStandardOutput) {
  NEEDS_VOICES();
  const Outcome r =
      sluice({"run", kVoices, "-p", "In the beginning", "-n", "8", "--temp", "0", "--experts"});
  ASSERT_EQ(r.exit, 0) << r.err;
  EXPECT_EQ(r.out.find("tokens/s"), std::string::npos);
  EXPECT_NE(r.err.find("tokens/s"), std::string::npos);
  EXPECT_NE(r.err.find("layer   0"), std::string::npos);
  EXPECT_EQ(r.err.find('\x1b'), std::string::npos);  // not a terminal
  const Outcome as_json =
      sluice({"run", kVoices, "-p", "In the beginning", "-n", "8", "--temp", "0", "--json"});
  EXPECT_EQ(as_json.last_line()["outputs"][0]["text"].get<std::string>() + "\n", r.out);
}

TEST_F(CliTest, RunEndsAtAStopString) {
  NEEDS_VOICES();
  const auto text = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args = {"run",    kVoices, "-p",    "In the beginning", "-n", "30",
                                     "--temp", "0",     "--json"};
    args.insert(args.end(), more.begin(), more.end());
    return sluice(args).last_line()["outputs"][0];
  };
  const std::string whole = text({})["text"];
  ASSERT_GT(whole.size(), 20u);
  const std::string stop = whole.substr(9, 5);
  const json cut = text({"--stop", stop});
  EXPECT_EQ(cut["text"], whole.substr(0, whole.find(stop)));
  EXPECT_EQ(cut["finish"], "stop");
}

TEST_F(CliTest, RunRefusesWhatDoesNotFit) {
  NEEDS_VOICES();
  expect_failure({"run", kVoices, "-p", std::string(20000, 'x')}, {"context"});
  expect_failure({"run", kVoices, "-p", "Hello there", "--context", "2"}, {"context is 2"});
  expect_failure({"run", kVoices, "-p", "x", "--temp", "-1"}, {"temperature"});
  expect_failure({"run", kVoices, "-p", "x", "--top-p", "1.5"}, {"top_p"});
}

TEST_F(CliTest, CtrlCEndsARunWithItsTextSoFar) {
  NEEDS_VOICES();
  const pid_t child =
      start({"run", kVoices, "-p", "In the beginning", "-n", "400", "--ignore-eos"});
  // Some text first, so that the interruption comes between steps.
  for (int i = 0; i < 600 && contents(path("stdout")).empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ::kill(child, SIGINT);
  const Outcome r = finish(child);
  EXPECT_EQ(r.exit, 130) << r.signal << r.err;
  EXPECT_FALSE(r.out.empty());
  EXPECT_NE(r.err.find("tokens/s"), std::string::npos);
  EXPECT_NE(r.err.find("interrupted"), std::string::npos);
}

TEST_F(CliTest, ChatReadsLinesAndReusesTheConversation) {
  NEEDS_VOICES();
  const Outcome r = sluice({"chat", kVoices, "-n", "10", "--temp", "0", "--json"}, {},
                           "Hello\n\n/help\nAnd then?\n/reset\nHello\n");
  ASSERT_EQ(r.exit, 0) << r.err;
  std::vector<json> answers;
  std::istringstream lines(r.out);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with('{')) answers.push_back(json::parse(line));
  ASSERT_EQ(answers.size(), 3u) << r.out;
  EXPECT_EQ(answers[0]["reused_tokens"], 0);
  EXPECT_GT(answers[1]["reused_tokens"], 5);
  EXPECT_EQ(answers[2]["content"], answers[0]["content"]);
}

TEST_F(CliTest, AClosedOutputIsAnError) {
  NEEDS_VOICES();
  const std::string command = std::string(SLUICE_BINARY) + " run " + kVoices +
                              " -p In -n 4 --json > /dev/full 2> " + path("err");
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_NE(contents(path("err")).find("standard output"), std::string::npos);
}

}  // namespace
}  // namespace sluice::test
