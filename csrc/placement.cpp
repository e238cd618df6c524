#include "placement.h"

#include <llama-impl.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "devices.h"
#include "error.h"

namespace inferno {

namespace {

[[noreturn]] void refuse(const std::string & field, const std::string & why) {
    throw Error(ErrorCode::invalid_request, field + " " + why + ".", field);
}

llama_split_mode split_mode_of(const std::string & name) {
    return name == "none" ? LLAMA_SPLIT_MODE_NONE : name == "row" ? LLAMA_SPLIT_MODE_ROW : LLAMA_SPLIT_MODE_LAYER;
}

float read_share(const std::string & text) {
    size_t end   = 0;
    float  share = -1;
    try {
        share = std::stof(text, &end);
    } catch (const std::exception &) {
        end = std::string::npos;
    }
    if (end != text.size() || !std::isfinite(share) || share < 0) {
        refuse("tensor_split", "must be numbers of at least 0 with commas between");
    }
    return share;
}

std::vector<float> shares_of(const EngineOptions & options, size_t n_devices) {
    if (options.tensor_split.empty()) {
        return {};
    }
    std::vector<float> shares;
    std::istringstream parts(options.tensor_split + ",");
    for (std::string part; std::getline(parts, part, ',');) {
        shares.push_back(read_share(part));
    }
    if (options.split_mode == "none") {
        refuse("tensor_split", "needs a split_mode other than none");
    }
    if (shares.size() != n_devices) {
        refuse("tensor_split", "has " + std::to_string(shares.size()) + " shares for " + std::to_string(n_devices) +
                                   (n_devices == 1 ? " device" : " devices"));
    }
    if (std::all_of(shares.begin(), shares.end(), [](float share) { return share == 0; })) {
        refuse("tensor_split", "gives no device anything");
    }
    shares.resize(llama_max_devices());
    return shares;
}

bool splits_rows(ggml_backend_dev_t device) {
    ggml_backend_reg_t backend = ggml_backend_dev_backend_reg(device);
    return ggml_backend_reg_get_proc_address(backend, "ggml_backend_split_buffer_type") != nullptr;
}

void check_row_split(const std::vector<ggml_backend_dev_t> & devices) {
    for (ggml_backend_dev_t device : devices) {
        if (!splits_rows(device)) {
            refuse("split_mode", std::string("row is beyond what ") + ggml_backend_dev_name(device) + " can do");
        }
    }
}

// Everything but the number of layers.
Placement devices_for(const EngineOptions & options) {
    std::vector<ggml_backend_dev_t> devices = find_devices(options.device);
    Placement                       result;
    result.split_mode = split_mode_of(options.split_mode);
    result.shares     = shares_of(options, devices.size());
    if (result.split_mode == LLAMA_SPLIT_MODE_ROW) {
        check_row_split(devices);
    }
    if (result.split_mode == LLAMA_SPLIT_MODE_NONE && (options.main_gpu != 0 || !devices.empty())) {
        if (static_cast<size_t>(options.main_gpu) >= devices.size()) {
            refuse("main_gpu", "is " + std::to_string(options.main_gpu) + ", and there are " +
                                   std::to_string(devices.size()) + " devices");
        }
        devices = {devices[static_cast<size_t>(options.main_gpu)]};
    }
    devices.push_back(nullptr);
    result.devices = std::move(devices);
    return result;
}

uint64_t bytes_on(const MemoryEstimate & memory, ggml_backend_dev_t device) {
    const auto found = memory.device_bytes.find(ggml_backend_dev_name(device));
    return found == memory.device_bytes.end() ? 0 : found->second;
}

// The first device that has not as much; null when all have. A driver that does not say how much it has is believed.
ggml_backend_dev_t too_small(const Placement & placement, const MemoryEstimate & memory, uint64_t reserve) {
    for (ggml_backend_dev_t device : placement.devices) {
        if (device != nullptr) {
            const FreeMemory free = free_memory(device);
            if (free.known && bytes_on(memory, device) + reserve > free.bytes) {
                return device;
            }
        }
    }
    return nullptr;
}

int32_t layers_that_fit(const std::string & path, const EngineOptions & options, const ModelInfo & info,
                        Placement placement, uint64_t reserve) {
    const auto fits = [&](int32_t layers) {
        placement.gpu_layers = layers;
        try {
            return too_small(placement, measure(path, options, info, placement), reserve) == nullptr;
        } catch (const Error & error) {
            if (error.code() == ErrorCode::service_unavailable) {
                return false;
            }
            throw;
        }
    };
    int32_t high = info.n_layer + 1;  // with the output
    if (fits(high)) {
        return high;
    }
    int32_t low = 0;  // fits: takes nothing
    while (high - low > 1) {
        const int32_t middle = (low + high) / 2;
        (fits(middle) ? low : high) = middle;
    }
    return low;
}

std::string mib(uint64_t bytes) {
    return std::to_string(bytes >> 20) + " MiB";
}

}  // namespace

Placement place(const std::string & path, const EngineOptions & options, const ModelInfo & info) {
    Placement placement = devices_for(options);
    if (placement.on_host()) {
        if (options.gpu_layers > 0) {
            LLAMA_LOG_WARN("%s: gpu_layers is %d, and there is no GPU to use: all layers stay with the processor\n",
                           __func__, options.gpu_layers);
        }
        return placement;
    }
    placement.gpu_layers =
        options.gpu_layers < 0
            ? layers_that_fit(path, options, info, placement, static_cast<uint64_t>(options.device_reserve_mb) << 20)
            : std::min(options.gpu_layers, info.n_layer + 1);
    // Without layers there, a device would still take scratch memory and some of the products.
    return placement.gpu_layers == 0 ? Placement() : placement;
}

MemoryEstimate measure(const std::string & path, const EngineOptions & options, const ModelInfo & info,
                       const Placement & placement) {
    llama_model_params params = model_params(options, placement);
    params.no_alloc           = true;  // sizes only; llama.cpp wants no memory map with it
    params.load_mode          = LLAMA_LOAD_MODE_NONE;
    const ModelPointer model(llama_model_load_from_file(path.c_str(), params));
    if (!model) {
        throw Error(ErrorCode::invalid_request, "The file is not a model that can be loaded.", "model");
    }
    check_cache_types(model.get(), options);
    const auto context =
        make_context(model.get(), info.can_generate ? generation_params(options) : embedding_params(options, info));
    MemoryEstimate result = memory_of(context.get());
    result.store_bytes    = info.can_generate ? store_bytes(options) : 0;
    result.context_size   = options.context_size;
    result.gpu_layers     = placement.gpu_layers;
    return result;
}

void check_room(const std::string & path, const EngineOptions & options, const ModelInfo & info,
                const Placement & placement) {
    if (placement.on_host()) {
        return;
    }
    const MemoryEstimate     memory = measure(path, options, info, placement);
    const ggml_backend_dev_t device = too_small(placement, memory, 0);
    if (device == nullptr) {
        return;
    }
    const int32_t fitting = layers_that_fit(path, options, info, placement, 0);
    throw Error(ErrorCode::service_unavailable,
                "Device " + std::string(ggml_backend_dev_name(device)) + " has " + mib(free_memory(device).bytes) +
                    " free, and gpu_layers = " + std::to_string(placement.gpu_layers) + " needs " +
                    mib(bytes_on(memory, device)) + " there. " +
                    (fitting > 0 ? "gpu_layers = " + std::to_string(fitting) + " fits; so may "
                                 : std::string("What may fit is ")) +
                    "a smaller context_size or parallel, or kv_offload = false.");
}

}  // namespace inferno
