#include "load_mode.h"

#include <array>
#include <fstream>
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

// Who has CAP_IPC_LOCK is not bound by the limit.
bool may_exceed_limit() {
    constexpr uint64_t kIpcLock = 1U << 14;
    std::ifstream      status("/proc/self/status");
    std::string        word;
    while (status >> word) {
        if (word == "CapEff:") {
            uint64_t capabilities = 0;
            status >> std::hex >> capabilities;
            return (capabilities & kIpcLock) != 0;
        }
    }
    return false;
}

uint64_t lockable_bytes() {
    constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
#ifdef RLIMIT_MEMLOCK
    rlimit limit{};
    if (!may_exceed_limit() && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        return limit.rlim_cur;
    }
#endif
    return kUnlimited;
}

bool locks(llama_load_mode mode) {
    return mode == LLAMA_LOAD_MODE_MLOCK || mode == LLAMA_LOAD_MODE_MMAP_MLOCK;
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

llama_load_mode prepare_load(const std::string & mode, uint64_t bytes) {
    const llama_load_mode result = mode_named(mode);
    const uint64_t        limit  = lockable_bytes();
    if (locks(result) && limit < bytes) {
        throw Error(ErrorCode::invalid_request,
                    "load_mode " + mode + " locks up to " + std::to_string(bytes >> 20) +
                        " MiB of memory; this process may lock " + std::to_string(limit >> 20) +
                        " MiB (RLIMIT_MEMLOCK, ulimit -l).",
                    "load_mode");
    }
    kernels::lock_weights(locks(result));
    return result;
}

}  // namespace inferno
