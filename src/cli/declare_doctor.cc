#include "cli/cli.h"
#include "cli/doctor.h"

namespace sluice {

Command declare_doctor(CLI::App& app) {
  auto o = std::make_shared<DoctorOptions>();
  CLI::App* sub = app.add_subcommand("doctor", "What this machine offers, with measured roofs");
  add_threads(*sub, o->threads);
  add_flag(*sub, "--quick", o->quick, "Facts only, no measurements");
  add_flag(*sub, "--json", o->json, "One JSON object");
  sub->footer(R"(Examples:
  sluice doctor
  SLUICE_ISA=avx2 sluice doctor --threads 1 --json)");
  return {sub, [o](Console& console) { return run_doctor(*o, console); }, &o->json};
}

}  // namespace sluice
