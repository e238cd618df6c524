#include "backends.h"

#include <cpu_internals.h>

#ifdef GGML_BACKEND_DL
#include <ggml-backend-impl.h>

#include <memory>
#include <vector>

#include <ggml-backend-dl.h>
#endif

#include "error.h"

namespace inferno {

#ifdef GGML_BACKEND_DL

namespace {

#ifdef _WIN32
constexpr const char * kPrefix = "ggml-", *kExtension = ".dll";
#else
constexpr const char * kPrefix = "libggml-", *kExtension = ".so";
#endif

struct Variant {
    fs::path    file;
    std::string name;
};

// Absolute, for the current directory may change before it is used.
fs::path directory() {
    Dl_info info;
    if (dladdr(reinterpret_cast<const void *>(&cpu_code), &info) == 0) {
        throw Error(ErrorCode::internal_error, "The dynamic linker does not know where this module is.");
    }
    return fs::absolute(info.dli_fname).parent_path() / "lib";
}

// "cpu-haswell" of libggml-cpu-haswell.so; "" of what is no backend.
std::string backend_name(const fs::path & file) {
    const std::string stem = file.stem().string();
    return file.extension() == kExtension && stem.rfind(kPrefix, 0) == 0 ? stem.substr(std::string(kPrefix).size()) : "";
}

bool is_cpu(const std::string & backend) {
    return backend.rfind("cpu-", 0) == 0;
}

std::vector<fs::path> backend_files() {
    std::vector<fs::path> result;
    std::error_code       none;
    for (const auto & entry : fs::directory_iterator(directory(), none)) {
        if (!backend_name(entry.path()).empty()) {
            result.push_back(entry.path());
        }
    }
    return result;
}

// How much of this processor a variant uses; 0 when it cannot run here.
int score(const fs::path & file) {
    const dl_handle_ptr module(dl_load_library(file));
    void * const        function = module ? dl_get_sym(module.get(), "ggml_backend_score") : nullptr;
    return function == nullptr ? 0 : reinterpret_cast<ggml_backend_score_t>(function)();
}

Variant find_best_variant() {
    Variant best;
    int     best_score = 0;
    for (const fs::path & file : backend_files()) {
        const std::string name = backend_name(file);
        const int         mark = is_cpu(name) ? score(file) : 0;
        if (mark > best_score) {
            best       = {file, name.substr(4)};
            best_score = mark;
        }
    }
    if (best_score == 0) {
        throw Error(ErrorCode::service_unavailable,
                    "None of the CPU variants of this installation runs on this processor; build Inferno from source on "
                    "this machine.");
    }
    return best;
}

const Variant & best_variant() {
    static const Variant variant = find_best_variant();
    return variant;
}

void * symbol(const fs::path & file, const char * name) {
    dl_handle_ptr module(dl_load_library(file));
    void * const  result = module ? dl_get_sym(module.get(), name) : nullptr;
    (void) module.release();  // ggml has it open too, for good
    return result;
}

}  // namespace

std::string cpu_code() {
    return best_variant().name;
}

const InfernoCpuInternals & load_backends() {
    const fs::path & cpu      = best_variant().file;
    void * const     internals = symbol(cpu, "inferno_cpu_internals");
    if (internals == nullptr) {
        throw Error(ErrorCode::internal_error, "The CPU variant " + cpu_code() + " is not of this build.");
    }
    for (const fs::path & file : backend_files()) {
        if (!is_cpu(backend_name(file))) {
            ggml_backend_load(file.string().c_str());  // a GPU that is not there is no error
        }
    }
    ggml_backend_load(cpu.string().c_str());
    return *reinterpret_cast<decltype(&inferno_cpu_internals)>(internals)();
}

#else

std::string cpu_code() {
#ifdef INFERNO_NATIVE
    return "native";
#else
    return "fixed";
#endif
}

const InfernoCpuInternals & load_backends() {
    return *inferno_cpu_internals();
}

#endif

}  // namespace inferno
