// The program from outside: exit codes, help, environment names, running and chatting, Ctrl-C.
#include <chrono>
#include <cstring>
#include <thread>

#include "cli_runs.h"

namespace sluice::test {
namespace {

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
