// Steps of a packed store whose file is mapped, and of the same store copied into large pages, turn
// by turn in one process: what small pages cost once everything is in memory.
//
//   bench_store_steady STORE [TURNS]      one JSON line
//
// A turn of decode is 16 steps of one token, of prefill one step of 512 tokens; the first of each
// only warms up. Ratios are of the turns' pairs, mapped over copied: above 1, mapped is slower.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "model/model.h"

namespace {

using namespace sluice;

constexpr int kDecodeSteps = 16;
constexpr int64_t kPrefillTokens = 512;

double now_seconds() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}
double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}
int fail(const Status& status) {
  std::fprintf(stderr, "bench_store_steady: %s\n", status.message().c_str());
  return 1;
}

struct Side {
  std::unique_ptr<Model> model;
  std::unique_ptr<Engine> engine;
  double load_seconds = 0;
  std::vector<double> decode, prefill;  // seconds of a turn
};

Status load(Runtime& runtime, const std::string& path, bool copy, Side* side) {
  const double start = now_seconds();
  SLUICE_ASSIGN_OR_RETURN(side->model, load_model(runtime, path, {.copy = copy}));
  side->load_seconds = now_seconds() - start;
  SLUICE_ASSIGN_OR_RETURN(side->engine, Engine::create(runtime, *side->model, {.kv_tokens = 4096}));
  return ok_status();
}

// One request; the seconds of its first step, and of the others together.
Status run(Side& side, int64_t prompt, int64_t more, double* first, double* rest) {
  Request request;
  for (int64_t i = 0; i < prompt; ++i)
    request.prompt.push_back(static_cast<int32_t>(i * 7919 % side.model->spec.vocabulary));
  request.max_new_tokens = more + 1;
  request.ignore_eos = true;
  request.sampling.temperature = 0;
  SLUICE_RETURN_IF_ERROR(side.engine->submit(std::move(request)).status());
  for (int step = 0; side.engine->busy(); ++step) {
    const double start = now_seconds();
    SLUICE_RETURN_IF_ERROR(side.engine->step().status());
    *(step == 0 ? first : rest) += now_seconds() - start;
  }
  return ok_status();
}

Status turn(Side& side) {
  double prefill = 0, decode = 0, unused = 0;
  SLUICE_RETURN_IF_ERROR(run(side, kPrefillTokens, 0, &prefill, &unused));
  SLUICE_RETURN_IF_ERROR(run(side, 4, kDecodeSteps, &unused, &decode));
  side.prefill.push_back(prefill);
  side.decode.push_back(decode / kDecodeSteps);
  return ok_status();
}

// "2048 kB" of all mappings that match.
long huge_kilobytes(const char* key) {
  std::ifstream smaps("/proc/self/smaps_rollup");
  std::string word;
  long kb = 0;
  while (smaps >> word)
    if (word == key) smaps >> kb;
  return kb;
}

void print(const char* name, const Side& mapped, const Side& copied,
           std::vector<double> Side::*times) {
  std::vector<double> ratios;
  for (size_t i = 0; i < (mapped.*times).size(); ++i)
    ratios.push_back((mapped.*times)[i] / (copied.*times)[i]);
  std::printf(
      "\"%s\": {\"mapped_ms\": %.3f, \"copied_ms\": %.3f, \"ratio\": %.4f, \"least\": %.4f, "
      "\"most\": %.4f}, ",
      name, 1e3 * median(mapped.*times), 1e3 * median(copied.*times), median(ratios),
      *std::min_element(ratios.begin(), ratios.end()),
      *std::max_element(ratios.begin(), ratios.end()));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_store_steady STORE [TURNS]\n");
    return 2;
  }
  const int turns = argc > 2 ? std::atoi(argv[2]) : 9;
  Result<std::unique_ptr<Runtime>> runtime = Runtime::create({});
  if (!runtime.ok()) return fail(runtime.status());
  Side mapped, copied;
  if (const Status s = load(**runtime, argv[1], false, &mapped); !s.ok()) return fail(s);
  if (const Status s = load(**runtime, argv[1], true, &copied); !s.ok()) return fail(s);
  for (int i = 0; i <= turns; ++i) {
    for (Side* side : {&mapped, &copied}) {
      if (const Status s = turn(*side); !s.ok()) return fail(s);
      if (i > 0) continue;
      side->prefill.clear();
      side->decode.clear();
    }
  }
  std::printf("{\"store\": \"%s\", \"turns\": %d, ", argv[1], turns);
  print("decode", mapped, copied, &Side::decode);
  print("prefill", mapped, copied, &Side::prefill);
  std::printf(
      "\"mapped_load_s\": %.3f, \"copied_load_s\": %.3f, \"huge_anonymous_kb\": %ld, "
      "\"huge_file_kb\": %ld}\n",
      mapped.load_seconds, copied.load_seconds, huge_kilobytes("AnonHugePages:"),
      huge_kilobytes("FilePmdMapped:"));
  return 0;
}
