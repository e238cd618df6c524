#include "placement.h"

namespace inferno {

MemoryEstimate estimate_memory(const std::string & path, const EngineOptions & options) {
    start_llama();
    const ModelInfo     info      = inspect_model(path);
    const EngineOptions effective = effective_options(options, info);
    return measure(path, effective, info, place(path, effective, info));
}

}  // namespace inferno
