#include "cli/doctor.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/topology.h"
#include "cli/version.h"
#include "device/cpu/probe.h"
#include "device/cuda/cuda.h"
#include "device/device.h"

namespace sluice {
namespace {

std::string first_line_of(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// "always [madvise] never" -> "madvise"
std::string huge_page_mode() {
  const std::string line = first_line_of("/sys/kernel/mm/transparent_hugepage/enabled");
  const size_t open = line.find('['), close = line.find(']');
  if (open == std::string::npos || close == std::string::npos) return "unavailable";
  return line.substr(open + 1, close - open - 1);
}

nlohmann::ordered_json cuda_facts() {
  nlohmann::ordered_json facts = {{"kernels", cuda_built()},
                                  {"devices", nlohmann::ordered_json::array()}};
  const Result<std::vector<CudaDeviceInfo>> devices = list_cuda_devices();
  if (!devices.ok()) {
    facts["why"] = devices.status().message();
    return facts;
  }
  for (const CudaDeviceInfo& d : *devices)
    facts["devices"].push_back({{"index", d.index},
                                {"name", d.name},
                                {"compute_capability", fmt::format("{}.{}", d.major, d.minor)},
                                {"memory_bytes", d.memory_bytes},
                                {"processors", d.processors}});
  return facts;
}

std::string cuda_text(const nlohmann::ordered_json& facts) {
  if (facts.contains("why")) return facts["why"];
  std::string text;
  for (const auto& d : facts["devices"])
    text += fmt::format("{}cuda:{} {}, compute capability {}, {}", text.empty() ? "" : "; ",
                        d["index"].get<int>(), d["name"].get<std::string>(),
                        d["compute_capability"].get<std::string>(),
                        human_bytes(d["memory_bytes"].get<size_t>()));
  return text;
}

std::vector<std::string> path_names() {
  std::vector<std::string> names;
  for (const Isa isa : isa_paths()) names.emplace_back(isa_name(isa));
  return names;
}

void print(const nlohmann::ordered_json& facts, Console& console) {
  const auto line = [&](const char* name, const std::string& value) {
    console.out << fmt::format("{:<18}{}\n", name, value);
  };
  line("sluice",
       facts["version"].get<std::string>() + " (" + facts["build"].get<std::string>() + ")");
  line("CPU", facts["cpu"]);
  line("features",
       fmt::format("{}", fmt::join(facts["features"].get<std::vector<std::string>>(), " ")));
  line("ISA paths", fmt::format("{} (in use: {})",
                                fmt::join(facts["isa_paths"].get<std::vector<std::string>>(), " "),
                                facts["isa"].get<std::string>()));
  line("cores", fmt::format("{} for this process, {} workers", facts["cores"].get<int>(),
                            facts["workers"].get<int>()));
  line("memory",
       fmt::format("{} (cgroup respected)", human_bytes(facts["memory_bytes"].get<size_t>())));
  line("huge pages", facts["huge_pages"]);
  if (facts.contains("read_gb_per_second")) {
    line("memory read", fmt::format("{:.1f} GB/s", facts["read_gb_per_second"].get<double>()));
    line("f32 FMA peak", fmt::format("{:.0f} GFLOP/s", facts["fma_gflops"].get<double>()));
    line("bf16 peak", fmt::format("{:.0f} GFLOP/s", facts["bf16_gflops"].get<double>()));
    line("int8 peak", fmt::format("{:.0f} GOP/s", facts["int8_gops"].get<double>()));
  }
  line("CUDA", cuda_text(facts["cuda"]));
}

}  // namespace

Status run_doctor(const DoctorOptions& options, Console& console) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Runtime> runtime,
                          Runtime::create({.threads = options.threads}));
  nlohmann::ordered_json facts = {{"version", version()},
                                  {"build", build_id()},
                                  {"cpu", cpu_name()},
                                  {"features", cpu_features()},
                                  {"isa_paths", path_names()},
                                  {"isa", isa_name(runtime->isa())},
                                  {"cores", available_cores()},
                                  {"workers", runtime->pool().size()},
                                  {"memory_bytes", memory_limit_bytes()},
                                  {"huge_pages", huge_page_mode()}};
  if (!options.quick) {
    const CpuProbe probe = probe_cpu(runtime->context());
    if (!probe.ok)
      return resource_exhausted("doctor: no 256 MiB of memory for the bandwidth probe");
    facts["read_gb_per_second"] = probe.read_gb_per_second;
    facts["fma_gflops"] = probe.fma_gflops;
    facts["bf16_gflops"] = probe.bf16_gflops;
    facts["int8_gops"] = probe.int8_gops;
  }
  facts["cuda"] = cuda_facts();
  if (options.json)
    console.out << facts.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  else
    print(facts, console);
  return ok_status();
}

}  // namespace sluice
