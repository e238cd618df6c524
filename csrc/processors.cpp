#include "processors.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace inferno {

namespace {

int32_t physical_cores() {
    std::set<std::string> cores;
#ifdef __linux__
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (!CPU_ISSET(cpu, &allowed)) {
                continue;
            }
            std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
            std::string   siblings;
            if (std::getline(file, siblings)) {
                cores.insert(siblings);
            }
        }
    }
#endif
    const auto fallback = static_cast<size_t>(std::max(1U, std::thread::hardware_concurrency()));
    return static_cast<int32_t>(cores.empty() ? fallback : cores.size());
}

// The path in the line "0::/path"; "" when there is none.
std::string group_of(const std::string & own) {
    std::ifstream file(own);
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("0::", 0) == 0) {
            return line.substr(3);
        }
    }
    return "";
}

}  // namespace

double cpu_quota(const std::string & groups, const std::string & own) {
    double smallest = 0;
    // A group has what the groups around it leave.
    for (std::string group = group_of(own);; group.resize(group.rfind('/'))) {
        std::ifstream file(groups + group + "/cpu.max");
        double        time = 0, period = 0;  // "max" is no number
        if (file >> time >> period && period > 0) {
            smallest = smallest > 0 ? std::min(smallest, time / period) : time / period;
        }
        if (group.find('/') == std::string::npos) {
            return smallest;
        }
    }
}

int32_t usable_cores() {
    const int32_t cores = physical_cores();
    const double  quota = cpu_quota();
    return quota > 0 ? std::min(cores, std::max(1, static_cast<int32_t>(std::ceil(quota)))) : cores;
}

}  // namespace inferno
