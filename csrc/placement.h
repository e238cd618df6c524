// Where a model goes: which devices take part, and with how many of its layers. Decided before anything is allocated.
#pragma once

#include <string>

#include "llama_loading.h"

namespace inferno {

// `options` are effective ones. As many layers as asked for, as many as fit for -1, none without a device.
// Throws Error(invalid_request) naming the option: no such device, a split that cannot be.
Placement place(const std::string & path, const EngineOptions & options, const ModelInfo & info);

// What a model placed so takes; nothing is allocated. Throws Error(invalid_request), and Error(service_unavailable) when a
// device can never hold it.
MemoryEstimate measure(const std::string & path, const EngineOptions & options, const ModelInfo & info,
                       const Placement & placement);

// Throws Error(service_unavailable) with the numbers when a device has less free memory than the placement needs.
void check_room(const std::string & path, const EngineOptions & options, const ModelInfo & info,
                const Placement & placement);

}  // namespace inferno
