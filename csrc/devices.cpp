#include "devices.h"

#include <ggml-backend.h>

#include <algorithm>
#include <cstring>
#include <sstream>
#include <string_view>

#include "error.h"
#include "llama_loading.h"
#include "software_devices.h"

#ifndef INFERNO_GPU_BACKENDS
#define INFERNO_GPU_BACKENDS ""
#endif

namespace inferno {

namespace {

std::vector<std::string> split(const std::string & text, char separator) {
    std::vector<std::string> result;
    std::istringstream       parts(text);
    for (std::string part; std::getline(parts, part, separator);) {
        const size_t first = part.find_first_not_of(' ');
        if (first != std::string::npos) {
            result.push_back(part.substr(first, part.find_last_not_of(' ') - first + 1));
        }
    }
    return result;
}

std::vector<ggml_backend_dev_t> all_gpus() {
    start_llama();
    std::vector<ggml_backend_dev_t> result;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        if (is_gpu(ggml_backend_dev_get(i))) {
            result.push_back(ggml_backend_dev_get(i));
        }
    }
    return result;
}

ggml_backend_dev_props properties(ggml_backend_dev_t device) {
    ggml_backend_dev_props result{};
    ggml_backend_dev_get_props(device, &result);
    return result;
}

bool is_software(ggml_backend_dev_t device) {
    constexpr std::string_view kPrefix = "Vulkan";
    const std::string          name    = ggml_backend_dev_name(device);
    return name.rfind(kPrefix, 0) == 0 && name.size() > kPrefix.size() &&
           is_software_device(std::stoul(name.substr(kPrefix.size())));
}

bool integrated(ggml_backend_dev_t device) {
    return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

// ggml calls Apple's GPUs separate ones.
bool is_apples(ggml_backend_dev_t device) {
    return std::strcmp(ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)), "MTL") == 0;
}

const char * kind_of(ggml_backend_dev_t device) {
    return is_software(device) ? "software" : integrated(device) || is_apples(device) ? "integrated" : "gpu";
}

// One GPU may be there twice, by two backends.
bool same_hardware(ggml_backend_dev_t a, ggml_backend_dev_t b) {
    const char * first  = properties(a).device_id;
    const char * second = properties(b).device_id;
    return first != nullptr && second != nullptr && std::strcmp(first, second) == 0;
}

// Separate GPUs, each once; without any the integrated ones.
std::vector<ggml_backend_dev_t> unasked(const std::vector<ggml_backend_dev_t> & all) {
    const bool separate = std::any_of(all.begin(), all.end(), [](auto * gpu) { return !integrated(gpu); });
    std::vector<ggml_backend_dev_t> result;
    for (ggml_backend_dev_t gpu : all) {
        const bool twice = std::any_of(result.begin(), result.end(), [&](auto * other) { return same_hardware(gpu, other); });
        const bool hidden = is_software(gpu) && software_is_by_name_only();
        if (integrated(gpu) != separate && !twice && !hidden) {
            result.push_back(gpu);
        }
    }
    return result;
}

[[noreturn]] void refuse(const std::string & why) {
    throw Error(ErrorCode::invalid_request, why, "device");
}

[[noreturn]] void refuse_unknown(const std::string & name, const std::vector<ggml_backend_dev_t> & all) {
    if (gpu_backends().empty()) {
        refuse("There is no device " + name + ": this build of Inferno computes on the processor alone.");
    }
    std::string names;
    for (ggml_backend_dev_t gpu : all) {
        names += (names.empty() ? "" : ", ") + std::string(ggml_backend_dev_name(gpu));
    }
    refuse("There is no device " + name + "; " + (names.empty() ? "none was found." : "there is " + names + "."));
}

ggml_backend_dev_t find(const std::string & name, const std::vector<ggml_backend_dev_t> & all) {
    const auto found = std::find_if(all.begin(), all.end(), [&](auto * gpu) { return name == ggml_backend_dev_name(gpu); });
    if (found == all.end()) {
        refuse_unknown(name, all);
    }
    return *found;
}

}  // namespace

std::vector<std::string> gpu_backends() {
    return split(INFERNO_GPU_BACKENDS, ' ');
}

bool is_gpu(ggml_backend_dev_t device) {
    return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_GPU || integrated(device);
}

bool shares_host_memory(ggml_backend_dev_t device) {
    return std::strcmp(kind_of(device), "gpu") != 0;
}

FreeMemory free_memory(ggml_backend_dev_t device) {
    size_t free = 0, total = 0;
    ggml_backend_dev_memory(device, &free, &total);
    return {total > 0, std::min(free, total)};
}

std::vector<Device> list_devices() {
    std::vector<Device> result;
    for (ggml_backend_dev_t gpu : all_gpus()) {
        const ggml_backend_dev_props facts = properties(gpu);
        result.push_back({facts.name, facts.description, kind_of(gpu), facts.memory_total, facts.memory_free});
    }
    return result;
}

std::vector<ggml_backend_dev_t> find_devices(const std::string & names) {
    if (names == "cpu") {
        return {};
    }
    const auto all = all_gpus();
    if (names.empty()) {
        return unasked(all);
    }
    std::vector<ggml_backend_dev_t> result;
    for (const std::string & name : split(names, ',')) {
        ggml_backend_dev_t device = find(name, all);
        if (std::find(result.begin(), result.end(), device) != result.end()) {
            refuse("The device " + name + " is named twice.");
        }
        result.push_back(device);
    }
    if (result.empty()) {
        refuse("device names no device.");
    }
    return result;
}

}  // namespace inferno
