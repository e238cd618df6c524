// How many threads of this process can compute at once.
#pragma once

#include <cstdint>
#include <string>

namespace inferno {

// Cores, not hardware threads: two threads of a core share its vector units. Those that this process may run on, and no
// more than its control group has time for, rounded up.
int32_t usable_cores();

// Processors' worth of time that the control groups (version 2) of the process whose list of groups is `own` allow; 0 when
// they say nothing. https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max
double cpu_quota(const std::string & groups = "/sys/fs/cgroup", const std::string & own = "/proc/self/cgroup");

}  // namespace inferno
