// The command line: declaration of commands and the way from arguments to an exit code.
//
// A command is two things: a body `Status run_xxx(const XxxOptions&, ...)` in cli/xxx.{h,cc}, which
// knows nothing of flags, and a declaration here in cli/declare_*.cc, which knows nothing else.
// Every flag --some-name can also be given as the environment variable SLUICE_ARG_SOME_NAME.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "base/status.h"
#include "cli/console.h"

namespace sluice {

inline constexpr int kExitDone = 0, kExitFailed = 1, kExitUsage = 2, kExitInterrupted = 130;

// What a declared command does once its flags have been read.
using CommandBody = std::function<Status(Console&)>;
struct Command {
  CLI::App* app = nullptr;
  CommandBody body;
  const bool* json = nullptr;  // where --json stands, if the command has it
};

// --some-name (or the positional some_name) -> SLUICE_ARG_SOME_NAME.
std::string environment_name(const std::string& flags);

template <class T>
CLI::Option* add_option(CLI::App& app, const std::string& flags, T& value,
                        const std::string& help) {
  return app.add_option(flags, value, help)->envname(environment_name(flags));
}
inline CLI::Option* add_flag(CLI::App& app, const std::string& flags, bool& value,
                             const std::string& help) {
  return app.add_flag(flags, value, help)->envname(environment_name(flags));
}

// Options that several commands have (cli/declare_options.cc): --mode and --arith, --profile,
// --threads, and all of them with what else loading a model asks.
struct LoadRequest;  // cli/load.h
void add_mode(CLI::App& app, std::string& mode);
void add_mode(CLI::App& app, std::string& mode, std::string& arith, const std::string& instead_of);
void add_profile(CLI::App& app, std::string& profile);
void add_threads(CLI::App& app, int& threads);
void add_load_options(CLI::App& app, LoadRequest& load);

// cli/declare_*.cc
Command declare_run(CLI::App& app);
Command declare_chat(CLI::App& app);
Command declare_score(CLI::App& app);
Command declare_tokenize(CLI::App& app);
Command declare_template(CLI::App& app);
Command declare_inspect(CLI::App& app);
Command declare_pack(CLI::App& app);
Command declare_synth(CLI::App& app);
Command declare_bench(CLI::App& app);
Command declare_bench_layer(CLI::App& app);
Command declare_doctor(CLI::App& app);

int run_cli(int argc, char** argv);

}  // namespace sluice
