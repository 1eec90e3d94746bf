#include "cli/chat.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace sluice {
namespace {

constexpr const char* kHelp = R"(  /help    this text
  /reset   forget the conversation
  /exit    end (so does Ctrl-D)
  Ctrl-C stops an answer. A line that ends with \ goes on in the next one.
)";

class Conversation {
 public:
  Conversation(const ChatOptions& options, const LoadedModel& loaded, const Tokenizer& tokenizer,
               ChatFormat format, Engine& engine, std::istream& in, Console& console)
      : o_(options),
        tokenizer_(tokenizer),
        format_(format),
        engine_(engine),
        session_(engine, tokenizer),
        sampling_(sampling_params(options.sampling, loaded.model->generation)),
        in_(in),
        console_(console) {
    context_ = o_.context > 0 ? std::min(o_.context, engine.max_tokens()) : engine.max_tokens();
    reset();
  }
  Status run();

 private:
  enum class Input { kMessage, kNothing, kEnd };
  Input read(std::string& line);
  Status answer(const std::string& message);
  Status stream(RequestId id, ChatMessage& reply, FinishReason& finish);
  void show(const TextEvent& event);
  void reset();

  const ChatOptions& o_;
  const Tokenizer& tokenizer_;
  const ChatFormat format_;
  Engine& engine_;
  Session session_;
  const SamplingParams sampling_;
  std::istream& in_;
  Console& console_;
  int64_t context_ = 0;
  ChatRequest chat_;
  std::optional<RequestId> last_;  // its KV blocks are kept for the next turn
  SpeedMeter speed_;
  bool reasoning_shown_ = false;
};

void Conversation::reset() {
  chat_ = {};
  chat_.enable_thinking = o_.think;
  if (!o_.system.empty()) chat_.messages.push_back({.role = "system", .content = o_.system});
  if (last_) engine_.forget(*last_);
  last_.reset();
}

Conversation::Input Conversation::read(std::string& message) {
  message.clear();
  for (bool more = true; more;) {
    if (console_.out_is_terminal) console_.out << (message.empty() ? "> " : ". ") << std::flush;
    std::string line;
    if (!std::getline(in_, line)) {
      if (!interrupted()) return message.empty() ? Input::kEnd : Input::kMessage;
      // Ctrl-C at the prompt drops the line.
      clear_interrupt();
      std::clearerr(stdin);
      in_.clear();
      console_.out << "\n(Ctrl-D or /exit ends)\n";
      return Input::kNothing;
    }
    more = line.ends_with('\\');
    if (more) line.back() = '\n';
    message += line;
  }
  if (message == "/exit" || message == "/quit") return Input::kEnd;
  if (message == "/help") {
    console_.out << kHelp;
  } else if (message == "/reset") {
    reset();
    console_.out << "(the conversation is forgotten)\n";
  } else if (message.starts_with('/') && message.find_first_of(" /", 1) == std::string::npos) {
    console_.out << "(no command " << message << "; /help lists them)\n";
  } else if (message.find_first_not_of(" \t\r\n") != std::string::npos) {
    return Input::kMessage;
  }
  return Input::kNothing;
}

// Reasoning is dimmed on a terminal and left out elsewhere.
void Conversation::show(const TextEvent& e) {
  if (o_.json) return;
  if (!e.text.reasoning.empty() && console_.out_is_terminal) {
    console_.out << "\x1b[2m" << e.text.reasoning << "\x1b[0m";
    reasoning_shown_ = true;
  }
  if (!e.text.answer.empty() && reasoning_shown_) {
    console_.out << "\n\n";
    reasoning_shown_ = false;
  }
  console_.out << e.text.answer << std::flush;
}

Status Conversation::stream(RequestId id, ChatMessage& reply, FinishReason& finish) {
  std::string text, reasoning;
  bool cancelled = false;
  while (session_.busy()) {
    if (interrupted() && !cancelled) {
      SLUICE_RETURN_IF_ERROR(session_.cancel(id));
      cancelled = true;
    }
    const double start = now_seconds();
    SLUICE_ASSIGN_OR_RETURN(const std::vector<TextEvent> events, session_.step());
    int64_t drawn = 0;
    for (const TextEvent& e : events) {
      show(e);
      text += e.text.answer;
      reasoning += e.text.reasoning;
      drawn += e.has_token ? 1 : 0;
      if (e.finish != FinishReason::kNone) finish = e.finish;
    }
    speed_.add(session_.prompt_rows(), session_.rows(), drawn, now_seconds() - start);
  }
  reply = {.role = "assistant", .content = text};
  if (!reasoning.empty()) reply.reasoning = reasoning;
  return ok_status();
}

Status Conversation::answer(const std::string& message) {
  chat_.messages.push_back({.role = "user", .content = message});
  SLUICE_ASSIGN_OR_RETURN(const RenderedPrompt rendered, render_chat(format_, chat_));
  std::vector<int32_t> prompt = rendered.encode(tokenizer_);
  const int64_t room = context_ - static_cast<int64_t>(prompt.size());
  if (room < 1) {
    chat_.messages.pop_back();
    console_.out << fmt::format(
        "(the conversation has {} tokens and the context is {}: /reset starts afresh)\n",
        prompt.size(), context_);
    return ok_status();
  }
  TextRequest request{.request = {.prompt = std::move(prompt), .sampling = sampling_},
                      .format = format_};
  request.request.max_new_tokens = std::min(o_.tokens, room);
  request.request.keep = true;
  request.request.reuse = last_;
  SLUICE_ASSIGN_OR_RETURN(const RequestId id, session_.submit(std::move(request)));
  last_ = id;
  ChatMessage reply;
  FinishReason finish = FinishReason::kNone;
  SLUICE_RETURN_IF_ERROR(stream(id, reply, finish));
  clear_interrupt();
  if (o_.json) {
    const nlohmann::ordered_json line = {{"role", "assistant"},
                                         {"content", reply.content},
                                         {"reasoning", reply.reasoning.value_or("")},
                                         {"finish", finish_reason_name(finish)},
                                         {"reused_tokens", engine_.stats().reused_tokens}};
    console_.out << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  } else {
    if (finish == FinishReason::kCancelled) console_.out << " (stopped)";
    if (finish == FinishReason::kLength) console_.out << " (cut at the limit)";
    console_.out << "\n" << std::flush;
  }
  chat_.messages.push_back(std::move(reply));
  return ok_status();
}

Status Conversation::run() {
  if (console_.out_is_terminal && !o_.json) console_.out << "/help explains; Ctrl-D ends.\n";
  std::string message;
  for (;;) {
    const Input input = read(message);
    if (input == Input::kEnd) break;
    if (input == Input::kMessage) SLUICE_RETURN_IF_ERROR(answer(message));
    if (!console_.out.good()) return io_error("writing to standard output failed");
  }
  if (speed_.decode_tokens() > 0 && !o_.json)
    console_.err << fmt::format("prefill {:.1f} tokens/s, decode {:.1f} tokens/s\n",
                                speed_.prefill(), speed_.decode());
  return ok_status();
}

}  // namespace

Status run_chat(const ChatOptions& o, std::istream& in, Console& console) {
  SLUICE_ASSIGN_OR_RETURN(const LoadedModel loaded, load_for(console, o.load));
  SLUICE_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(o.load.model));
  SLUICE_ASSIGN_OR_RETURN(const ChatFormat format,
                          chat_format_of(loaded.model->spec.model_type, tokenizer));
  const int64_t context = o.context > 0 ? std::min(o.context, loaded.model->spec.context) : 0;
  SLUICE_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      Engine::create(*loaded.runtime, *loaded.model, {.max_sequences = 1, .kv_tokens = context}));
  if (!o.json)
    console.err << describe_sampling(sampling_params(o.sampling, loaded.model->generation),
                                     o.sampling, loaded.model->generation)
                << std::endl;
  return Conversation(o, loaded, tokenizer, format, *engine, in, console).run();
}

}  // namespace sluice
