// The devices besides the processor: what there is, and what a model may use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct ggml_backend_device;  // what ggml_backend_dev_t points to

namespace inferno {

struct Device {
    std::string name;              // "CUDA0", "Vulkan1": what the option `device` takes
    std::string description;       // the driver's words
    std::string kind;              // gpu; integrated: shares the host's memory; software: the processor itself
    uint64_t    total_bytes = 0;   // 0 when the driver does not say
    uint64_t    free_bytes  = 0;
};

// GPU backends of this build, such as "Vulkan". Starts no driver.
std::vector<std::string> gpu_backends();

// Starts the drivers of these backends.
std::vector<Device> list_devices();

// Those that `names` lists with commas between; all that are to be used unasked for "", none for "cpu".
// Throws Error(invalid_request, field "device").
std::vector<ggml_backend_device *> find_devices(const std::string & names);

// A GPU of any kind, which has its own buffers.
bool is_gpu(ggml_backend_device * device);

// What lies there lies in the host's memory.
bool shares_host_memory(ggml_backend_device * device);

struct FreeMemory {
    bool     known;
    uint64_t bytes;
};
FreeMemory free_memory(ggml_backend_device * device);

}  // namespace inferno
