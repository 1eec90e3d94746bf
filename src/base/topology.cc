#include "base/topology.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <string>

namespace sluice {
namespace {

std::string first_line(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

double to_number(const std::string& text) {
  double v = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), v);
  return r.ec == std::errc() ? v : 0;
}

}  // namespace

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = ::sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  // "max 100000" or "200000 100000": quota and period in microseconds.
  const std::string quota = first_line("/sys/fs/cgroup/cpu.max");
  if (const size_t space = quota.find(' '); space != std::string::npos) {
    const double q = to_number(quota.substr(0, space)), period = to_number(quota.substr(space + 1));
    if (q > 0 && period > 0) cores = std::min(cores, static_cast<int>(std::ceil(q / period)));
  }
  return std::max(cores, 1);
}

size_t memory_limit_bytes() {
  const auto pages = static_cast<size_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
  size_t bytes = pages * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const double limit = to_number(first_line("/sys/fs/cgroup/memory.max"));
  if (limit > 0) bytes = std::min(bytes, static_cast<size_t>(limit));
  return bytes;
}

size_t resident_bytes() {
  const std::string line = first_line("/proc/self/statm");
  const size_t space = line.find(' ');
  if (space == std::string::npos) return 0;
  return static_cast<size_t>(to_number(line.substr(space + 1))) *
         static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

size_t peak_resident_bytes() {
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace sluice
