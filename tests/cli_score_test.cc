// The program from outside, on a golden model: scoring, and bad input to score, pack and inspect.
#include "cli_runs.h"

namespace sluice::test {
namespace {

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

}  // namespace
}  // namespace sluice::test
