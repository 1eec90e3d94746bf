// Steps of a packed store whose file is mapped, and of the same store copied into large pages, turn
// by turn in one process: what small pages cost once everything is in memory.
//
//   bench_store_steady STORE [TURNS] [mapped]      one JSON line; "mapped": that side alone, of a
//                                                  store of which memory cannot hold two
//
// A turn of decode is 16 steps of one token, of prefill one step of 512 tokens; the first of each
// only warms up. Ratios are of the turns' pairs, mapped over copied: above 1, mapped is slower. The
// roof of a decode step is the time to read what it touches once (K of E experts, all else whole)
// at the rate at which all workers read the store where it is mapped.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "device/cpu/probe.h"
#include "engine/engine.h"
#include "model/model.h"
#include "weights/store.h"

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

// Bytes that a step of one token reads.
double step_bytes(const StoreHeader& header, const ModelSpec& spec) {
  double bytes = 0;
  for (const StoreEntry& e : header.entries) {
    if (e.role == "embedding" && e.layout == WeightLayout::kRowMajor) continue;  // one row of it
    double part = 1;
    if (e.role == "experts" && !spec.layers.empty() && spec.layers[0].moe)
      part = static_cast<double>(spec.layers[0].moe->k) /
             static_cast<double>(spec.layers[0].moe->experts);
    bytes += part * static_cast<double>(e.bytes);
  }
  return bytes;
}

// GB/s of all workers over up to 4 GB of the mapped file.
double read_rate(const ExecContext& context, const PackedStore& store) {
  constexpr int64_t kPiece = int64_t{1} << 20;
  const auto bytes = static_cast<int64_t>(store.header().file_bytes - store.header().payload);
  const int64_t floats = std::min(bytes, int64_t{4} << 30) / 4 / kPiece * kPiece;
  if (floats == 0) return 0;
  return probe_read_rate(context, reinterpret_cast<const float*>(store.payload()), floats, 5);
}

void print_mapped(const char* name, const std::vector<double>& times) {
  std::printf("\"%s\": {\"mapped_ms\": %.3f, \"least_ms\": %.3f, \"most_ms\": %.3f}, ", name,
              1e3 * median(times), 1e3 * *std::min_element(times.begin(), times.end()),
              1e3 * *std::max_element(times.begin(), times.end()));
}

void print(const char* name, const Side& mapped, const Side& copied,
           std::vector<double> Side::*times) {
  if (copied.model == nullptr) return print_mapped(name, mapped.*times);
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

Status print_roof(Runtime& runtime, const std::string& path, const Model& model) {
  SLUICE_ASSIGN_OR_RETURN(const auto store, PackedStore::open(path));
  const double bytes = step_bytes(store->header(), model.spec);
  const double rate = read_rate(runtime.context(), *store);
  if (rate > 0)
    std::printf("\"step_bytes\": %.0f, \"read_gb_per_second\": %.2f, \"decode_roof_ms\": %.3f, ",
                bytes, rate, bytes / rate / 1e6);
  return ok_status();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_store_steady STORE [TURNS] [mapped]\n");
    return 2;
  }
  const int turns = argc > 2 ? std::atoi(argv[2]) : 9;
  const bool alone = argc > 3 && std::strcmp(argv[3], "mapped") == 0;
  Result<std::unique_ptr<Runtime>> runtime = Runtime::create({});
  if (!runtime.ok()) return fail(runtime.status());
  Side mapped, copied;
  if (const Status s = load(**runtime, argv[1], false, &mapped); !s.ok()) return fail(s);
  if (!alone)
    if (const Status s = load(**runtime, argv[1], true, &copied); !s.ok()) return fail(s);
  for (int i = 0; i <= turns; ++i) {
    for (Side* side : {&mapped, &copied}) {
      if (side->model == nullptr) continue;
      if (const Status s = turn(*side); !s.ok()) return fail(s);
      if (i > 0) continue;
      side->prefill.clear();
      side->decode.clear();
    }
  }
  std::printf("{\"store\": \"%s\", \"turns\": %d, ", argv[1], turns);
  print("decode", mapped, copied, &Side::decode);
  print("prefill", mapped, copied, &Side::prefill);
  if (const Status s = print_roof(**runtime, argv[1], *mapped.model); !s.ok()) return fail(s);
  if (!alone) std::printf("\"copied_load_s\": %.3f, ", copied.load_seconds);
  std::printf("\"mapped_load_s\": %.3f, \"huge_anonymous_kb\": %ld, \"huge_file_kb\": %ld}\n",
              mapped.load_seconds, huge_kilobytes("AnonHugePages:"),
              huge_kilobytes("FilePmdMapped:"));
  return 0;
}
