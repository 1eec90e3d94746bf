#include "cli/run.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/topology.h"
#include "cli/expert_picture.h"

namespace sluice {
namespace {

// One prompt and what has become of it.
struct Answer {
  RequestId id = 0;
  std::vector<int32_t> prompt;
  std::string text, reasoning;
  size_t shown = 0;  // bytes of text already printed
  int64_t tokens = 0;
  FinishReason finish = FinishReason::kNone;
};

Result<std::vector<int32_t>> encode_prompt(const RunOptions& o, const Tokenizer& tokenizer,
                                           std::optional<ChatFormat> format,
                                           const std::string& prompt) {
  if (!format) return tokenizer.encode(prompt, true);
  ChatRequest chat;
  if (!o.system.empty()) chat.messages.push_back({.role = "system", .content = o.system});
  chat.messages.push_back({.role = "user", .content = prompt});
  chat.enable_thinking = o.think;
  SLUICE_ASSIGN_OR_RETURN(const RenderedPrompt rendered, render_chat(*format, chat));
  return rendered.encode(tokenizer);
}

Result<std::vector<Answer>> encode_prompts(const RunOptions& o, const Tokenizer& tokenizer,
                                           std::optional<ChatFormat> format, int64_t context) {
  std::vector<Answer> answers(o.prompts.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    SLUICE_ASSIGN_OR_RETURN(answers[i].prompt, encode_prompt(o, tokenizer, format, o.prompts[i]));
    if (answers[i].prompt.empty())
      return invalid_argument("prompt {}: it has no tokens, and this model begins with none",
                              i + 1);
    if (static_cast<int64_t>(answers[i].prompt.size()) >= context)
      return invalid_argument("prompt {}: {} tokens, the context is {}", i + 1,
                              answers[i].prompt.size(), context);
  }
  return answers;
}

// KV blocks for what the answers can become, no more.
EngineOptions engine_options(const RunOptions& o, const std::vector<Answer>& answers,
                             int64_t context) {
  const auto count = static_cast<int64_t>(answers.size());
  EngineOptions options{.max_sequences = std::min<int64_t>(count, 64), .max_queue = count};
  for (const Answer& a : answers)
    options.kv_tokens +=
        round_up(std::min(static_cast<int64_t>(a.prompt.size()) + o.tokens, context), kKvBlock);
  return options;
}

// Streams the answers one after the other: the first unfinished one live, later ones when their
// turn has come.
class AnswerPrinter {
 public:
  AnswerPrinter(Console& console, const RunOptions& options) : console_(console), o_(options) {}
  void show(std::vector<Answer>& answers) {
    if (o_.json) return;
    while (turn_ < answers.size()) {
      Answer& a = answers[turn_];
      if (answers.size() > 1 && !headed_) console_.out << "--- " << o_.prompts[turn_] << "\n";
      headed_ = true;
      console_.out << std::string_view(a.text).substr(a.shown) << std::flush;
      a.shown = a.text.size();
      if (a.finish == FinishReason::kNone) return;
      console_.out << "\n";
      headed_ = false;
      ++turn_;
    }
  }

 private:
  Console& console_;
  const RunOptions& o_;
  size_t turn_ = 0;
  bool headed_ = false;
};

nlohmann::ordered_json json_report(const RunOptions& o, const std::vector<Answer>& answers,
                                   const SpeedMeter& speed, const LoadedModel& loaded,
                                   const Engine& engine) {
  nlohmann::ordered_json outputs = nlohmann::ordered_json::array();
  for (size_t i = 0; i < answers.size(); ++i) {
    const Answer& a = answers[i];
    outputs.push_back({{"prompt", o.prompts[i]},
                       {"text", a.text},
                       {"reasoning", a.reasoning},
                       {"prompt_tokens", a.prompt.size()},
                       {"tokens", a.tokens},
                       {"finish", finish_reason_name(a.finish)}});
  }
  const EngineStats stats = engine.stats();
  nlohmann::ordered_json line = {{"outputs", outputs},
                                 {"prefill_tokens_per_second", speed.prefill()},
                                 {"decode_tokens_per_second", speed.decode()},
                                 {"load_seconds", loaded.model->load_seconds},
                                 {"peak_memory_bytes", peak_resident_bytes()},
                                 {"weight_bytes", loaded.model->weight_bytes},
                                 {"kv_bytes", stats.kv_bytes},
                                 {"state_bytes", stats.state_bytes},
                                 {"steps", stats.steps},
                                 {"fused_routes", stats.routes.fused_calls},
                                 {"chained_routes", stats.routes.chained_calls},
                                 {"workers", loaded.runtime->pool().size()},
                                 {"isa", isa_name(loaded.runtime->isa())},
                                 {"compute", compute_name(loaded.model->compute)},
                                 {"profile", loaded.model->profile.name}};
  if (o.experts) line["experts"] = engine.expert_counts();
  return line;
}

void report(const RunOptions& o, const std::vector<Answer>& answers, const SpeedMeter& speed,
            const LoadedModel& loaded, const Engine& engine, Console& console) {
  if (o.json) {
    console.out << json_report(o, answers, speed, loaded, engine)
                       .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
                << "\n";
    return;
  }
  if (interrupted()) console.out << std::endl;
  console.err << fmt::format(
      "prefill {:.1f} tokens/s ({} tokens), decode {:.1f} tokens/s ({} tokens), load {:.2f} s, "
      "peak "
      "memory {}\n",
      speed.prefill(), speed.prompt_rows(), speed.decode(), speed.decode_tokens(),
      loaded.model->load_seconds, human_bytes(peak_resident_bytes()));
  if (o.experts) console.err << draw_expert_load(engine.expert_counts(), console.err_is_terminal);
}

// Steps until all answers are complete or Ctrl-C.
Status generate(Session& session, std::vector<Answer>& answers, AnswerPrinter& printer,
                SpeedMeter& speed) {
  while (session.busy() && !interrupted()) {
    const double start = now_seconds();
    SLUICE_ASSIGN_OR_RETURN(const std::vector<TextEvent> events, session.step());
    const double took = now_seconds() - start;
    int64_t drawn = 0;
    for (const TextEvent& e : events) {
      const auto it = std::find_if(answers.begin(), answers.end(),
                                   [&](const Answer& a) { return a.id == e.id; });
      if (it == answers.end()) continue;
      it->text += e.text.answer;
      it->reasoning += e.text.reasoning;
      it->tokens += e.has_token ? 1 : 0;
      drawn += e.has_token ? 1 : 0;
      if (e.finish != FinishReason::kNone) it->finish = e.finish;
    }
    speed.add(session.prompt_rows(), session.rows(), drawn, took);
    printer.show(answers);
  }
  return ok_status();
}

}  // namespace

Status run_run(const RunOptions& o, Console& console) {
  SLUICE_ASSIGN_OR_RETURN(const LoadedModel loaded, load_for(console, o.load));
  const Model& model = *loaded.model;
  SLUICE_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(o.load.model));
  std::optional<ChatFormat> format;
  if (o.chat) {
    SLUICE_ASSIGN_OR_RETURN(format, chat_format_of(model.spec.model_type, tokenizer));
  }
  const int64_t context =
      o.context > 0 ? std::min(o.context, model.spec.context) : model.spec.context;
  SLUICE_ASSIGN_OR_RETURN(std::vector<Answer> answers,
                          encode_prompts(o, tokenizer, format, context));
  SLUICE_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      Engine::create(*loaded.runtime, model, engine_options(o, answers, context)));
  Session session(*engine, tokenizer);
  const SamplingParams sampling = sampling_params(o.sampling, model.generation);
  if (!o.json)
    console.err << describe_sampling(sampling, o.sampling, model.generation) << std::endl;
  for (Answer& a : answers) {
    TextRequest request{
        .request = {.prompt = a.prompt, .sampling = sampling}, .stops = o.stops, .format = format};
    request.request.max_new_tokens =
        std::min(o.tokens, context - static_cast<int64_t>(a.prompt.size()));
    request.request.ignore_eos = o.ignore_eos;
    SLUICE_ASSIGN_OR_RETURN(a.id, session.submit(std::move(request)));
  }
  AnswerPrinter printer(console, o);
  SpeedMeter speed;
  SLUICE_RETURN_IF_ERROR(generate(session, answers, printer, speed));
  report(o, answers, speed, loaded, *engine, console);
  return interrupted() ? interrupted_status() : ok_status();
}

}  // namespace sluice
