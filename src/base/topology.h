// What the process may use of the machine.
#pragma once

#include <cstddef>

namespace sluice {

// Processors that the affinity mask and the cgroup's CPU quota leave us; at least 1.
int available_cores();
// Bytes of memory of the machine, or the cgroup's limit when that is smaller.
size_t memory_limit_bytes();
// Resident set now and at its peak, in bytes (0 when the system does not tell).
size_t resident_bytes();
size_t peak_resident_bytes();

}  // namespace sluice
