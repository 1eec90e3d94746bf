#include "cli/cli.h"

#include <unistd.h>

#include <cctype>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>

#include "cli/version.h"
#include "simd/isa.h"

namespace sluice {
namespace {

std::string version_text() {
  std::string paths;
  for (const Isa isa : isa_paths())
    paths += (paths.empty() ? "" : " ") + std::string(isa_name(isa));
  return fmt::format("sluice {} ({})\nISA paths on this machine: {}", version(), build_id(), paths);
}

constexpr const char* kFooter = R"(Examples:
  sluice run models/three-voices -p "It is a truth universally acknowledged" -n 80
  sluice chat models/three-voices
  sluice score MODEL --text book.txt            # bits per byte
  sluice inspect MODEL                          # what is in a model, and will it load?
  sluice bench experts --shape gpt-oss-20b      # how fast is a layer of experts here?
  sluice doctor                                 # what is in this machine

`sluice COMMAND --help` explains a command. Every flag --some-name can be set by the environment
variable SLUICE_ARG_SOME_NAME; SLUICE_ISA=reference|avx2|avx512|avx512vnni|avx512bf16|amx forces a
code path, amx_emulated the AMX one in plain C++.
Exit codes: 0 done, 1 bad input or environment, 2 usage, 130 interrupted.)";

// `bench experts` is a command inside `bench`, which is one of the program's.
const CLI::App& top_of(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  return parent == nullptr || parent->get_parent() == nullptr ? app : *parent;
}
std::string full_name(const CLI::App& app) {
  const CLI::App& top = top_of(app);
  return &top == &app ? app.get_name() : top.get_name() + " " + app.get_name();
}

int report(const Status& status, const Command& command, Console& console) {
  console.out.flush();
  if (status.ok() && console.out.good()) return kExitDone;
  const Status shown = status.ok() ? io_error("writing to standard output failed") : status;
  if (shown.code() == StatusCode::kCancelled) {
    console.err << "sluice: interrupted\n";
    return kExitInterrupted;
  }
  if (command.json != nullptr && *command.json) {
    const nlohmann::ordered_json line = {
        {"error", {{"code", status_code_name(shown.code())}, {"message", shown.message()}}}};
    console.out << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  }
  console.err << "sluice " << full_name(*command.app) << ": " << shown.message() << "\n";
  return kExitFailed;
}

// Environment names count for the command at hand only: SLUICE_ARG_CHUNK must not disturb `doctor`.
void forget_environment(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) option->envname("");
  for (CLI::App* group : app.get_subcommands([](CLI::App*) { return true; }))
    forget_environment(*group);
}

bool is_command_at_hand(const CLI::App& app, int argc, char** argv) {
  for (int i = 1; i < argc; ++i)
    if (argv[i][0] != '-') return top_of(app).get_name() == argv[i];
  return false;
}

// The first word, or the first two of a command inside another, where they name no command.
std::string unknown_command(std::span<const Command> commands, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return "";
  bool inside = false;
  for (const Command& c : commands) {
    const CLI::App& top = top_of(*c.app);
    if (!top.check_name(argv[1])) continue;
    if (&top == c.app || argc < 3 || argv[2][0] == '-' || c.app->check_name(argv[2])) return "";
    inside = true;
  }
  return inside ? fmt::format("{} {}", argv[1], argv[2]) : argv[1];
}

}  // namespace

std::string environment_name(const std::string& flags) {
  // The long name if there is one: "-n,--tokens" -> TOKENS, "--think,!--no-think" -> THINK.
  const size_t dashes = flags.find("--");
  const size_t begin = dashes == std::string::npos ? 0 : dashes + 2;
  std::string name = "SLUICE_ARG_";
  for (size_t i = begin; i < flags.size() && flags[i] != ','; ++i)
    name += flags[i] == '-' ? '_'
                            : static_cast<char>(std::toupper(static_cast<unsigned char>(flags[i])));
  return name;
}

int run_cli(int argc, char** argv) {
  Console console{std::cout, std::cerr, ::isatty(STDOUT_FILENO) == 1, ::isatty(STDERR_FILENO) == 1};
  install_interrupt_handler();
  CLI::App app("Sluice runs Mixture-of-Experts language models.", "sluice");
  app.set_version_flag("--version", version_text(), "Version, build id and ISA paths");
  app.require_subcommand(1);
  app.footer(kFooter);
  app.get_formatter()->column_width(34);
  std::vector<Command> commands;
  for (const auto declare : {declare_run, declare_chat, declare_score, declare_tokenize,
                             declare_template, declare_inspect, declare_pack, declare_synth,
                             declare_bench, declare_bench_layer, declare_doctor})
    commands.push_back(declare(app));
  for (const Command& c : commands)
    if (!is_command_at_hand(*c.app, argc, argv)) forget_environment(*c.app);
  if (const std::string words = unknown_command(commands, argc, argv); !words.empty()) {
    console.err << fmt::format("sluice: there is no command \"{}\"; `sluice --help` lists them\n",
                               words);
    return kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // CLI11 returns 0 for --help and --version; anything else is a usage error.
    return app.exit(e, console.out, console.err) == 0 ? kExitDone : kExitUsage;
  }
  for (const Command& c : commands)
    if (c.app->parsed()) return report(c.body(console), c, console);
  return kExitUsage;
}

}  // namespace sluice
