#include "load_mode.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <ios>
#include <limits>
#include <utility>

#include "error.h"
#include "kernels/weights_buffer.h"

#ifndef _WIN32
#include <sys/resource.h>
#endif

namespace inferno {

namespace {

constexpr std::array<std::pair<const char *, llama_load_mode>, 6> kModes = {{
    {"read", LLAMA_LOAD_MODE_NONE},
    {"mmap", LLAMA_LOAD_MODE_MMAP},
    {"mlock", LLAMA_LOAD_MODE_MLOCK},
    {"mmap_mlock", LLAMA_LOAD_MODE_MMAP_MLOCK},
    {"direct", LLAMA_LOAD_MODE_DIRECT_IO},
    {"auto", LLAMA_LOAD_MODE_AUTO},
}};

// A number of /proc/self/status; 0 where there is none.
uint64_t process_status(const std::string & name, std::ios_base & (*base)(std::ios_base &)) {
    std::ifstream status("/proc/self/status");
    std::string   word;
    uint64_t      value = 0;
    while (status >> word) {
        if (word == name) {
            status >> base >> value;
            break;
        }
    }
    return value;
}

// How much this process may lock beside what it has locked. Who has CAP_IPC_LOCK is not bound by the limit.
uint64_t lockable_bytes() {
    constexpr uint64_t kIpcLock   = 1U << 14;
    constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
#ifdef RLIMIT_MEMLOCK
    rlimit     limit{};
    const bool privileged = (process_status("CapEff:", std::hex) & kIpcLock) != 0;
    if (!privileged && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        const uint64_t locked = process_status("VmLck:", std::dec) << 10;
        return std::max<uint64_t>(limit.rlim_cur, locked) - locked;
    }
#endif
    return kUnlimited;
}

llama_load_mode mode_named(const std::string & name) {
    for (const auto & [word, mode] : kModes) {
        if (name == word) {
            return mode;
        }
    }
    throw Error(ErrorCode::invalid_request, "load_mode is not known.", "load_mode");
}

}  // namespace

bool locks_memory(const std::string & mode) {
    return mode == "mlock" || mode == "mmap_mlock";
}

llama_load_mode prepare_load(const std::string & mode, uint64_t bytes) {
    const llama_load_mode result = mode_named(mode);
    const uint64_t        limit  = lockable_bytes();
    if (locks_memory(mode) && limit < bytes) {
        throw Error(ErrorCode::invalid_request,
                    "load_mode " + mode + " locks up to " + std::to_string(bytes >> 20) +
                        " MiB of memory; this process may lock " + std::to_string(limit >> 20) +
                        " MiB more (RLIMIT_MEMLOCK, ulimit -l).",
                    "load_mode");
    }
    kernels::lock_weights(locks_memory(mode));
    return result;
}

}  // namespace inferno
