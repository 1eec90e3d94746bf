#include "cli/score.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "cli/score_text.h"
#include "model/mode.h"
#include "ops/kernel_table.h"
#include "ops/matmul/panels.h"
#include "tokenizer/tokenizer.h"
#include "weights/safetensors_writer.h"

namespace sluice {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
constexpr int64_t kLogitBytes = 256 << 20;  // of a step, unless --chunk asks for more
constexpr int64_t kDefaultChunk = 512;
constexpr int64_t kMaxSequences = 64;

struct Sizes {
  int64_t longest = 0;  // tokens of one sequence, its continuation included
  int64_t total = 0;    // of all, in whole KV blocks
  int64_t sequences = 0;
};

EngineOptions engine_options(const ScoreOptions& o, const Model& model, const Sizes& sizes) {
  const int64_t rows_for_logits = std::max<int64_t>(16, kLogitBytes / (4 * model.spec.vocabulary));
  EngineOptions e{.max_sequences = std::min(sizes.sequences, kMaxSequences), .scoring = true};
  e.chunk = o.chunk > 0 ? std::min(o.chunk, sizes.longest)
                        : std::min({sizes.longest, kDefaultChunk, rows_for_logits});
  e.max_batch_tokens = std::max(
      e.chunk, std::min(e.chunk * e.max_sequences, std::min<int64_t>(2048, rows_for_logits)));
  e.max_queue = std::max<int64_t>(sizes.sequences, 1);
  e.kv_tokens = std::min(sizes.total, std::max(round_up(sizes.longest, kKvBlock),
                                               default_kv_tokens(model.spec, model.compute, e)));
  return e;
}

// What ran, for people and tests: the numbers that --json ends with.
nlohmann::ordered_json report_of(const ScoreOptions& o, const LoadedModel& loaded,
                                 const EngineOptions& engine, const StepCounts& counts) {
  const Model& model = *loaded.model;
  nlohmann::ordered_json kernels = nlohmann::ordered_json::object();
  const auto name = [&](const char* role, const PackedMatrix& w, Arith arith) {
    if (w.empty()) return;
    const auto* kernel = select_panel_kernel(loaded.runtime->isa(), w.format, arith);
    if (kernel != nullptr) kernels[role] = kernel->name;
  };
  const auto of = [&](const PackedMatrix& w) {
    return product_arith(w.format, model.compute, model.mode, model.bf16_dot);
  };
  name("head", model.head, of(model.head));
  for (const LayerWeights& l : model.layers) {
    name("attention", l.attention.q, of(l.attention.q));
    name("values", l.attention.v, Arith::kF32Fma);
    name("dense", l.dense.down, of(l.dense.down));
    name("router", l.moe.router, Arith::kF32Fma);
    if (!l.moe.down.empty()) name("experts", l.moe.down[0], of(l.moe.down[0]));
  }
  ThreadPool& pool = loaded.runtime->pool();
  return {{"steps", counts.rows_per_step.size()},
          {"rows_per_step", counts.rows_per_step},
          {"greedy_steps", counts.greedy_steps},
          {"workers", pool.parallel_loops() > 0 ? pool.size() : 1},
          {"isa", isa_name(loaded.runtime->isa())},
          {"compute", compute_name(model.compute)},
          {"mode", mode_name(model.mode)},
          {"profile", model.profile.name},
          {"arith", arith_name(of(model.layers.front().moe.down.empty()
                                      ? model.head
                                      : model.layers.front().moe.down[0]))},
          {"kernels", kernels},
          {"chunk", engine.chunk}};
}

Status write_tensors(const std::string& path, const std::vector<OutputTensor>& tensors) {
  std::vector<TensorToWrite> list;
  list.reserve(tensors.size());
  for (const OutputTensor& t : tensors)
    list.push_back({.name = t.name,
                    .dtype = t.is_f32 ? DType::kF32 : DType::kI32,
                    .shape = t.shape,
                    .data = static_cast<const std::byte*>(t.data)});
  return write_safetensors(path, list);
}

Status score_ids(const ScoreOptions& o, const LoadedModel& loaded, const ScoreIds& ids,
                 Console& console) {
  const Model& model = *loaded.model;
  Sizes sizes{.sequences = static_cast<int64_t>(ids.lists.size())};
  int64_t input = 0;
  for (const auto& list : ids.lists) {
    const int64_t length = static_cast<int64_t>(list.size()) + o.greedy;
    sizes.longest = std::max(sizes.longest, length);
    sizes.total += round_up(length, kKvBlock);
    input += static_cast<int64_t>(list.size());
  }
  const EngineOptions options = engine_options(o, model, sizes);
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                          Engine::create(*loaded.runtime, model, options));
  ScoreCollector collector(model.spec, *engine);
  for (const auto& list : ids.lists) {
    Request request{.prompt = list,
                    .sampling = {.temperature = 0},
                    .max_new_tokens = o.greedy,
                    .ignore_eos = true,
                    .score_prompt = true};
    SLUICE_ASSIGN_OR_RETURN(const RequestId id, engine->submit(std::move(request)));
    collector.expect(id, static_cast<int64_t>(list.size()), o.trace);
  }
  const Tap tap = collector.tap();
  Progress progress(console, "scoring");
  StepCounts counts;
  const auto work = static_cast<size_t>(input + o.greedy * sizes.sequences);
  size_t done = 0;
  const double start = now_seconds();
  while (engine->busy()) {
    if (interrupted()) return interrupted_status();
    SLUICE_ASSIGN_OR_RETURN(const StepOutput step, engine->step(o.trace ? &tap : nullptr));
    counts.add(step);
    collector.take(step);
    done += static_cast<size_t>(step.rows);
    progress.update(std::min(done, work), work);
  }
  const double seconds = now_seconds() - start;
  SLUICE_RETURN_IF_ERROR(write_tensors(o.out, collector.tensors(ids.ragged)));
  if (!o.json) {
    console.out << fmt::format("{} tokens in {} steps, {:.2f} s -> {}\n", input,
                               counts.rows_per_step.size(), seconds, o.out);
    return ok_status();
  }
  nlohmann::ordered_json line = report_of(o, loaded, options, counts);
  line.update(
      {{"tokens", input}, {"sequences", sizes.sequences}, {"seconds", seconds}, {"out", o.out}});
  console.out << line.dump() << "\n";
  return ok_status();
}

std::vector<OutputTensor> text_tensors(const ScoreWindows& windows, const std::vector<int32_t>& ids,
                                       const TextScore& score, bool with_logits,
                                       int64_t vocabulary) {
  const auto tokens = static_cast<int64_t>(ids.size());
  std::vector<OutputTensor> out = {
      {"ids", false, {tokens}, ids.data(), ids.size() * 4},
      {"nats", true, {tokens}, score.token_nats.data(), score.token_nats.size() * 4}};
  if (with_logits)
    out.push_back({"logits",
                   true,
                   {static_cast<int64_t>(windows.windows[0].ids.size()), vocabulary},
                   score.logits.data(),
                   score.logits.size() * 4});
  return out;
}

Status score_text(const ScoreOptions& o, const LoadedModel& loaded, Console& console) {
  const Model& model = *loaded.model;
  SLUICE_ASSIGN_OR_RETURN(const std::string text, read_text_file(o.text, kMaxTextBytes));
  if (text.empty()) return invalid_argument("{}: the text is empty", o.text);
  if (model.spec.context < 2)
    return invalid_argument("score: the model's context is {}, too short for a text",
                            model.spec.context);
  SLUICE_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(o.load.model));
  const int32_t bos = tokenizer.bos().value_or(tokenizer.eos().value_or(-1));
  const std::vector<int32_t> ids = tokenizer.encode(text, false, AddedTokens::kVocabulary);
  const ScoreWindows windows = cut_windows(ids, model.spec.context, bos);

  Sizes sizes;
  for (const ScoreWindow& w : windows.windows) {
    sizes.longest = std::max(sizes.longest, static_cast<int64_t>(w.ids.size()));
    sizes.total += round_up(static_cast<int64_t>(w.ids.size()), kKvBlock);
  }
  sizes.sequences = std::min<int64_t>(static_cast<int64_t>(windows.windows.size()), 4);
  const EngineOptions options = engine_options(o, model, sizes);
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                          Engine::create(*loaded.runtime, model, options));
  Progress progress(console, "scoring");
  StepCounts counts;
  const double start = now_seconds();
  const bool keep_logits = !o.out.empty() && windows.windows.size() == 1;
  SLUICE_ASSIGN_OR_RETURN(
      TextScore score, score_windows(*engine, windows, model.spec.vocabulary, keep_logits, counts,
                                     [&](size_t done, size_t total) {
                                       progress.update(done, total);
                                       return !interrupted();
                                     }));
  score.bytes = static_cast<int64_t>(text.size());
  const double seconds = now_seconds() - start;
  if (!o.out.empty())
    SLUICE_RETURN_IF_ERROR(write_tensors(
        o.out, text_tensors(windows, ids, score, keep_logits, model.spec.vocabulary)));
  if (!o.json) {
    console.out << fmt::format("{:.4f} bits per byte ({} bytes, {} tokens, {} windows, {:.1f} s)\n",
                               score.bits_per_byte(), score.bytes, score.tokens, score.windows,
                               seconds);
    return ok_status();
  }
  nlohmann::ordered_json line = report_of(o, loaded, options, counts);
  line.update({{"bits_per_byte", score.bits_per_byte()},
               {"nats", score.nats},
               {"bytes", score.bytes},
               {"tokens", score.tokens},
               {"windows", score.windows},
               {"context", model.spec.context},
               {"seconds", seconds}});
  console.out << line.dump() << "\n";
  return ok_status();
}

}  // namespace

Status run_score(const ScoreOptions& o, Console& console) {
  SLUICE_ASSIGN_OR_RETURN(const LoadedModel loaded, load_for(console, o.load));
  if (!o.text.empty()) return score_text(o, loaded, console);
  SLUICE_ASSIGN_OR_RETURN(const ScoreIds ids, read_score_ids(o.ids, loaded.model->spec.vocabulary));
  return score_ids(o, loaded, ids, console);
}

}  // namespace sluice
